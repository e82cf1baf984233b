"""The reference matches the code: commands, limits, errors; and the site builds."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nyx_stream.errors
from nyx_stream.cli import main
from nyx_stream.cli.app import app
from nyx_stream.cli.plan import layer_of_limit
from nyx_stream.policy import Limits

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    """Returns the text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_command_and_option_is_described(capfd):
    """The page of the command line lists each command and each long option except `--help`."""
    text = page("reference/command-line.md")
    names = {str(command.name) for command in app.registered_commands}
    assert names == set(re.findall(r"^\| `nyx (\w+)", text, re.MULTILINE))
    for name in names:
        assert main([name, "--help"]) == 0
        for option in set(re.findall(r"--[a-z][a-z-]+", capfd.readouterr().out)) - {"--help", "--lines"}:
            assert option in text, f"{name} {option}"


def test_every_limit_is_in_the_table():
    """The table has the name, default and layer of every limit, and no other row."""
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [^|]+ \| (\w+) \|$", page("reference/policy-file.md"), re.MULTILINE)
    printed = Limits().printed()
    assert rows == [(name, str(value), layer_of_limit(name, "inline")) for name, value in printed.items()]


API_PATHS = re.findall(r"^::: (\S+)$", page("reference/api.md"), re.MULTILINE)


@pytest.mark.parametrize("path", API_PATHS)
def test_the_api_page_shows_public_paths(path):
    """The package exports the name."""
    package, _, name = path.rpartition(".")
    module = importlib.import_module(package)
    public = module.__all__ if hasattr(module, "__all__") else [key for key in vars(module) if not key.startswith("_")]
    assert name in public


@pytest.mark.parametrize("package", ["nyx_core.sandbox", "nyx_stream.audit", "nyx_stream.host", "nyx_stream.testing"])
def test_the_api_page_has_every_exported_name(package):
    """The page documents each name of `__all__`, under this package or a shorter path."""
    documented = {
        path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page("reference/api.md"), re.MULTILINE)
    }
    assert documented >= set(importlib.import_module(package).__all__)


def test_the_drawn_tree_has_every_error():
    """The tree in the docstring, which is also the page of errors, names each class."""
    tree = nyx_stream.errors.__doc__ or ""
    kinds = [
        kind for kind in vars(nyx_stream.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    own = [kind for kind in kinds if kind.__module__ == "nyx_stream.errors"]
    assert own
    for kind in own:
        assert re.search(rf"\b{kind.__name__}\b", tree), kind.__name__


def test_the_site_builds_strictly(tmp_path):
    """Every link works, every page is in the navigation, and every docstring can be parsed."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    where = ["--config-file", DOCS / "site" / "mkdocs.yml", "--site-dir", tmp_path / "site"]
    done = subprocess.run([*build, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "explanation" / "threat-model" / "index.html").exists()


def test_every_dependency_has_its_reason():
    """The page gives a reason for each dependency of the package and of its extras, except those for development."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = list(project["dependencies"])
    for extra, more in project["optional-dependencies"].items():
        if extra not in ("dev", "bench"):
            needed += more
    names = {re.split(r"[<>=\[]", need)[0] for need in needed}
    rows = re.findall(r"^\| ([a-z0-9-]+)[, ].*\| .{20,} \|", page("explanation/dependencies.md"), re.MULTILINE)
    assert names == {row for row in rows if row != "package"}


@pytest.mark.parametrize(
    "name",
    ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", ".github/RELEASING.md"],
)
def test_relative_links_name_existing_files(name):
    """Each relative link names an existing file."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (DOCS.parent / name).parent.joinpath(target).is_file(), target


def test_the_design_page_names_modules_that_exist():
    """Each path of its map of the packages, and each `folder/module.py` of its walks."""
    text = page("explanation/design.md")
    listing = text.split("## Where a thing is")[1].split("```")[1]
    paths = {path for line in listing.splitlines() for path in re.findall(r"(?:^|  )([\w/]+(?:\.py|/))(?=  |$)", line)}
    paths |= {path for path in re.findall(r"`([\w/]+\.py)`", text) if "/" in path}
    assert len(paths) > 25
    for path in paths:
        below = [f"nyx_stream/{path}", f"nyx_stream/isolation/{path}"]
        assert any((DOCS.parent / place).exists() for place in below), path
