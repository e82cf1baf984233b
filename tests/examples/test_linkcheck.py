"""The link checker on real documentation, whose links are served on loopback."""

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from nyx_stream.cli import main
from nyx_stream.errors import FilesystemDenied
from nyx_stream.testing import run_plugin

# Importing these opens a browser or a window, or takes long.
_NOT_DOCUMENTED = {"antigravity", "this", "idlelib", "turtledemo", "tkinter", "turtle", "test", "lib2to3"}

_REQUIRED = ("json", "os", "re", "socket")
_PAGES = 110


@pytest.fixture(scope="module")
def manuals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python's own documentation of much of its library, one HTML page per module, as pydoc writes it."""
    folder = tmp_path_factory.mktemp("manuals")
    names = sorted(name for name in sys.stdlib_module_names - _NOT_DOCUMENTED if not name.startswith("_"))
    modules = [name for name in names if find_spec(name) is not None]
    modules = [*_REQUIRED, *(name for name in modules if name not in _REQUIRED)][:_PAGES]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pydoc", "-w", *modules],
        cwd=folder,
        env=os.environ | {"PYTHONDOCS": "http://127.0.0.1:PORT/library"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return folder


def served_by(site, manuals, folder):
    """Copies the pages into `folder` and points their links at the site."""
    folder.mkdir(parents=True)
    for page in manuals.iterdir():
        text = page.read_text(encoding="utf-8", errors="replace")
        (folder / page.name).write_text(text.replace("http://127.0.0.1:PORT", site.origin), encoding="utf-8")


def test_real_documentation_is_checked_from_the_command_line(site, manuals, examples, tmp_path, capfd):
    """Over a hundred real HTML files: every link has a verdict, and both reports are in the data directory."""
    data = tmp_path / "data" / "linkcheck"
    served_by(site, manuals, data / "pages")
    site.add("*", "a page of the library")
    site.add("/library/json.html", status=404)
    site.pages["/library/socket.html"] = lambda method, request: (405, {}, b"") if method == "HEAD" else (200, {}, b"x")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[allow]\nrequest = ["GET,HEAD {site.origin}"]\nwrite = ["$DATA"]\n', encoding="utf-8")

    command = ["run", examples / "linkcheck", "check", "folder=pages", "--policy", policy, "--data-dir", data.parent]
    code = main([str(word) for word in command])

    done = capfd.readouterr()
    assert (code, done.err) == (0, "")
    summary = json.loads(done.out)
    assert summary["pages"] == len(list((data / "pages").glob("*.html"))) >= 100
    assert summary["unreadable"] == 0
    report = read_report(data)
    links = {link["address"]: link for link in report["links"]}
    assert summary["links"] == len(links) == sum(summary[v] for v in ("ok", "broken", "outside", "skipped"))
    assert links[f"{site.origin}/library/os.html"]["verdict"] == "ok"
    assert links[f"{site.origin}/library/json.html"]["verdict"] == "broken"
    assert links[f"{site.origin}/library/json.html"]["detail"] == "HTTP 404"
    assert links[f"{site.origin}/library/socket.html"]["verdict"] == "ok"
    assert ("GET", "/library/socket.html") in site.requests
    assert summary["outside"] > 0
    assert all(site.origin not in link["address"] for link in links.values() if link["verdict"] == "outside")
    assert links["re.html"]["verdict"] == "ok"
    assert len({path for _, path in site.requests}) == len({a for a in links if a.startswith(site.origin)})
    assert site.max_running <= 16
    assert "| broken |" in (data / "report.md").read_text(encoding="utf-8")


def write(path, text):
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_report(data):
    """Returns the report in a data directory."""
    return json.loads(Path(data, "report.json").read_text(encoding="utf-8"))


PAGES = {
    "index.html": """
        <base href="{site}/guide/"><a href="chapter.html#top">c</a> <a href="#here">h</a>
        <a href="mailto:a@b.example">m</a>
        <img src="{site}/picture.png"><a href="http://[broken">b</a><a href="https://elsewhere.example/x">e</a>
        <a href="{site}/hop">redirected inside</a> <a href="{site}/leave">redirected outside</a>""",
    "notes/read.md": """
        # Notes
        [good](../index.html) [gone](missing.md "title") ![pic]({site}/picture.png) <{site}/auto>
        [ref]: {site}/ref_(1)
        `[code]({site}/never)` [up](../../../../../etc/passwd)
        """,
    "notes/plain.txt": "[not a page]({site}/never)",
}


async def test_every_kind_of_link_has_its_verdict(site, examples):
    """HTML and Markdown, bases and fragments, redirects, links in code, and paths that leave the folder."""
    for path in ("/guide/chapter.html", "/picture.png", "/auto", "/ref_(1)"):
        site.add(path)
    site.add("/hop", status=302, Location="/picture.png")
    site.add("/leave", status=302, Location="http://evil.example/")
    async with run_plugin(examples / "linkcheck") as plugin:
        for name, text in PAGES.items():
            write(Path(plugin.data, "site", name), textwrap.dedent(text).replace("{site}", site.origin))
        summary = await plugin.call("check", folder="site")
        report = read_report(plugin.data)
    verdicts = {link["address"].replace(site.origin, ""): link["verdict"] for link in report["links"]}
    assert verdicts == {
        "/guide/chapter.html": "ok",
        "/guide/": "broken",
        "mailto:a@b.example": "skipped",
        "/picture.png": "ok",
        "http://[broken": "broken",
        "https://elsewhere.example/x": "outside",
        "/hop": "ok",
        "/leave": "outside",
        "index.html": "ok",
        "notes/missing.md": "broken",
        "/auto": "ok",
        "/ref_(1)": "ok",
        "../../../../../etc/passwd": "skipped",
    }
    assert summary.pages == 2
    assert ("HEAD", "/never") not in site.requests


async def test_the_limit_bounds_the_number_of_requests(site, examples):
    """Links over the limit are skipped and reported as skipped."""
    site.add("*")
    async with run_plugin(examples / "linkcheck") as plugin:
        write(Path(plugin.data, "index.html"), "".join(f'<a href="{site.origin}/{n}">' for n in range(50)))
        summary = await plugin.call("check", limit=10)
    assert (summary.ok, summary.skipped) == (10, 40)
    assert len(site.requests) == 10


async def test_a_folder_that_is_not_granted_is_not_read(examples):
    """A caller cannot make the plugin read an ungranted folder."""
    async with run_plugin(examples / "linkcheck") as plugin:
        with pytest.raises(FilesystemDenied):
            await plugin.call("check", folder="/etc")
