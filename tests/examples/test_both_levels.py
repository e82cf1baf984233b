"""The examples give the same results, and leave the same files, whether they run inline or in a sealed process."""

import json
import re
from pathlib import Path

import pytest
from pydantic_core import to_jsonable_python

from nyx_stream.plugin_sandbox import SandboxPolicy
from nyx_stream.testing import run_plugin
from tests.conformance.machine import missing
from tests.examples.test_feeds import ATOM, EXTERNAL, RSS
from tests.examples.test_linkcheck import PAGES, read_report, write

_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


@pytest.fixture(autouse=True)
def sealing():
    """Skips on machines that cannot seal a process."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")


def files_below(folder):
    """Returns the content of every file by its path, without times."""
    return {
        str(path.relative_to(folder)): _content(_TIME.sub("<time>", path.read_text(encoding="utf-8")), path.suffix)
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def _content(text, suffix):
    """Parses JSON, so that the order of concurrent results does not matter."""
    return json.loads(text) if suffix == ".json" else text


async def test_linkcheck(site, examples):
    """Verdicts, summary, reports and denials are equal."""
    for path in ("/guide/chapter.html", "/picture.png", "/auto", "/ref_(1)"):
        site.add(path)
    site.add("/hop", status=302, Location="/picture.png")
    site.add("/leave", status=302, Location="http://evil.example/")
    results = []
    for level in ("inline", "process"):
        async with run_plugin(examples / "linkcheck", isolation=level) as plugin:
            for name, text in PAGES.items():
                write(Path(plugin.data, "site", name), text.replace("{site}", site.origin))
            summary = await plugin.call("check", folder="site")
            denied = sorted((event.capability, event.action, event.target) for event in plugin.denied)
            results.append((to_jsonable_python(summary), files_below(plugin.data), denied))
    assert results[0] == results[1]
    assert results[0][0]["pages"] == 2
    assert len(results[0][2]) > 0


async def test_feeds(site, examples):
    """Outcomes, entries, state and denials are equal, for valid and invalid feeds."""
    for path, body in {"/rss": RSS, "/atom": ATOM, "/bad": EXTERNAL}.items():
        site.add(path, body, ETag='"1"')
    urls = [f"{site.origin}{path}" for path in ("/rss", "/atom", "/bad", "/none")] + ["https://evil.example/feed"]
    results = []
    for level in ("inline", "process"):
        async with run_plugin(examples / "feeds", isolation=level) as plugin:
            outcomes = await plugin.call("refresh", urls=urls)
            entries = await plugin.call("entries")
            denied = [(event.capability, event.action, event.target) for event in plugin.denied]
            results.append((to_jsonable_python([outcomes, entries]), files_below(plugin.data), denied))
    assert results[0] == results[1]
    assert [outcome["status"] for outcome in results[0][0][0]] == ["new", "new", "failed", "failed", "denied"]


async def test_linkcheck_of_a_large_folder_needs_half_of_the_default_memory(examples):
    """80,000 links in a sealed process with 64 MiB, because the plugin writes the report while it checks."""
    policy = SandboxPolicy.locked_down().allow_path_prefix("$DATA").with_limits(memory="64MiB")
    async with run_plugin(examples / "linkcheck", policy=policy, isolation="process") as plugin:
        for number in range(40):
            page = "".join(f'<a href="#chapter-{number}-section-{place}-of-a-long-manual">' for place in range(2000))
            write(Path(plugin.data, "manual", f"{number}.html"), page)
        summary = await plugin.call("check", folder="manual")
        report = read_report(plugin.data)
    assert summary["links"] == summary["skipped"] == len(report["links"]) == 80_000
