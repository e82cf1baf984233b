"""Runs or validates every code block of the documentation, in order, in one directory per page.

- A block with a title is written to that file, and validated if it is TOML.
- A Python block without a title is run in a new interpreter.
- In a console block the commands `nyx` and `python` are run and their output is compared; `...` matches anything.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nyx_stream.cli import main
from nyx_stream.errors import PolicyError
from nyx_stream.host import read_config
from nyx_stream.plugin_sandbox import SandboxPolicy
from nyx_stream.policy.manifest import Manifest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

NOT_RUN = ("pip", "python3")
"""Commands that install packages or create environments. Only a clean checkout runs them."""


@dataclass(frozen=True)
class Block:
    """A fenced block and its line in the page."""

    kind: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page that name their language."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["kind"], match["title"], match["text"], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="the pages are written for POSIX paths")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_works(page, tmp_path, monkeypatch, capfd):
    """Files are valid, programs succeed, and commands print what the page shows."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_DATA_HOME", "HOME", "LOCALAPPDATA"):  # the directories of application data on each platform
        monkeypatch.setenv(name, str(tmp_path / ".local"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.title is not None:
            path = tmp_path / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.kind == "toml":
            check_toml(block, tmp_path, where)
        elif block.kind == "python":
            check_python(block, where)
        elif block.kind == "console":
            check_console(block, where, capfd)
        elif block.kind == "json":
            json.loads(block.text)
        else:
            assert block.kind == "text", f"{where}: blocks of kind {block.kind} cannot be checked"


def check_toml(block: Block, folder: Path, where: str) -> None:
    """A TOML block is a manifest, a host file or a policy, or its first line says that it is wrong on purpose."""
    path = folder / (block.title or "block.toml")
    path.write_text(block.text, encoding="utf-8")
    if block.text.startswith("# wrong on purpose"):
        with pytest.raises(PolicyError):
            SandboxPolicy.from_toml(path)
    elif block.text.startswith("[project"):
        assert "nyx.plugins" in block.text
    elif "[[plugins]]" in block.text:
        # The files that it names follow later in the page; the page's Python block reads them.
        with pytest.raises(PolicyError, match="plugins"):
            read_config(path)
    elif re.search(r"^entry = ", block.text, re.MULTILINE):
        assert Manifest.from_toml(path).id, where
    else:
        SandboxPolicy.from_toml(path)


def check_python(block: Block, where: str) -> None:
    """A Python block compiles, and without a title it also runs."""
    compile(block.text, where, "exec")
    if block.title is None:
        done = python("-c", block.text)
        assert done.returncode == 0, f"{where}:\n{done.stderr}"


def check_console(block: Block, where: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each `nyx` and `python` command prints the text below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    for command, expected in commands:
        words = shlex.split(command)
        variables = [words.pop(0).partition("=")[::2] for _ in range(len(words)) if re.match(r"[A-Z_]+=", words[0])]
        if words[0] in NOT_RUN:
            continue
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables:
                patch.setenv(name, value)
            printed = output_of(words, capfd).rstrip("\n")
        assert matches("\n".join(expected), printed), f"{where}: {command} printed:\n{printed}"


def output_of(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Runs a command in the page's directory and returns its stdout followed by its stderr."""
    if words[0] == "nyx":
        capfd.readouterr()
        main(words[1:])
        return "".join(capfd.readouterr())
    assert words[0] == "python", f"the command {words[0]} cannot be checked"
    done = python(*words[1:])
    return done.stdout + done.stderr


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs this Python in the page's directory."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)


def matches(expected: str, printed: str) -> bool:
    """Compares output. `...` matches any text, and the width of white space is ignored."""
    lines = _lines(expected)
    # A line that is only `...` matches any number of lines, including none.
    pattern = "\n".join(
        r"(?:.*\n)*.*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) for line in lines
    )
    return re.fullmatch(pattern, "\n".join(_lines(printed))) is not None


def _lines(text: str) -> list[str]:
    # The width of a column depends on the machine's paths.
    return [re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.splitlines()]


def test_the_comparison_finds_a_difference():
    """Only the dots match anything."""
    assert matches("a ... c", "a b c")
    assert matches("a\n...", "a\nb\nc")
    assert not matches("a ... c", "a b d")
    assert not matches("a", "a\nb")
