"""The feed reader against a server that knows conditional requests."""

import json

import pytest

from nyx_stream.host import PluginHost
from nyx_stream.testing import run_plugin

RSS = """<?xml version="1.0"?>
<rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/"><channel><title>News &amp; more</title>
<item><title>First</title><media:title>wrong</media:title><link>http://x.example/1</link><guid>1</guid>
<pubDate>Mon, 23 Nov 2026 10:00:00 +0100</pubDate></item>
<item><title>Second</title><link>http://x.example/2</link></item></channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Atom</title>
<entry><title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">Hello <b>you</b></div></title><id>urn:1</id>
<link rel="self" href="http://x.example/self"/><link href="http://x.example/a"/><updated>2026-11-24T00:00:00Z</updated>
</entry></feed>"""

EXTERNAL = '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel><title>&x;</title></channel></rss>'


def conditional(body, tag):
    """Returns a page that answers 304 if the client already has it."""

    def page(method, request):
        if request.headers.get("If-None-Match") == tag:
            return 304, {"ETag": tag}, b""
        return 200, {"ETag": tag, "Last-Modified": "Mon, 23 Nov 2026 09:00:00 GMT"}, body.encode()

    return page


async def test_feeds_of_both_kinds_are_read(site, examples):
    """RSS and Atom: titles, links and dates are parsed as the standards define; newest first, undated last."""
    site.add("/rss", RSS)
    site.add("/atom", ATOM)
    async with run_plugin(examples / "feeds") as plugin:
        outcomes = await plugin.call("refresh", urls=[f"{site.origin}/rss", f"{site.origin}/atom"])
        entries = await plugin.call("entries")
    assert [outcome.status for outcome in outcomes] == ["new", "new"]
    assert [(entry.title, entry.link, entry.date) for entry in entries] == [
        ("Hello you", "http://x.example/a", "2026-11-24T00:00:00+00:00"),
        ("First", "http://x.example/1", "2026-11-23T09:00:00+00:00"),
        ("Second", "http://x.example/2", None),
    ]


async def test_state_survives_a_restart_and_makes_requests_conditional(site, examples, tmp_path):
    """A second host requests only changes, and reports what is new since then."""
    url = f"{site.origin}/rss"
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[allow]\nrequest = ["GET {site.origin}"]\nwrite = ["$DATA"]\n', encoding="utf-8")
    site.pages["/rss"] = conditional(RSS, '"one"')
    results = []
    for tag in ('"one"', '"one"', '"two"'):
        site.pages["/rss"] = conditional(RSS.replace("<guid>1<", f"<guid>{tag[1:-1]}<"), tag)
        async with PluginHost(data_dir=tmp_path / "data") as host:
            feeds = await host.load(examples / "feeds", policy=policy)
            (outcome,) = await feeds.call("refresh", urls=[url])
            results.append((outcome.status, len(outcome.fresh)))
    assert results == [("new", 2), ("unchanged", 0), ("new", 1)]
    state = json.loads((tmp_path / "data" / "feeds" / "feeds.json").read_text(encoding="utf-8"))
    assert state["sources"][url]["etag"] == '"two"'


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (EXTERNAL, "document type declaration is refused"),
        ("<rss><channel>", "not XML"),
        ("<html/>", "neither RSS nor Atom"),
        ("<rss>" + "<a>" * 100, "nested more than 64 deep"),
        ("", "not XML"),
    ],
)
async def test_a_bad_feed_does_not_affect_the_others(site, examples, body, detail):
    """An invalid or refused feed fails without affecting the other; none of it is stored."""
    site.add("/bad", body)
    site.add("/good", RSS)
    async with run_plugin(examples / "feeds") as plugin:
        bad, good = await plugin.call("refresh", urls=[f"{site.origin}/bad", f"{site.origin}/good"])
        entries = await plugin.call("entries")
    assert (bad.status, good.status) == ("failed", "new")
    assert detail in bad.detail
    assert len(entries) == 2


async def test_only_the_feed_of_an_ungranted_host_is_denied(site, examples):
    """The denial is an outcome, and the guard recorded it."""
    site.add("/rss", RSS)
    async with run_plugin(examples / "feeds") as plugin:
        outcomes = await plugin.call("refresh", urls=["https://evil.example/feed", f"{site.origin}/rss"])
        denied = [event.target for event in plugin.denied]
    assert [outcome.status for outcome in outcomes] == ["denied", "new"]
    assert denied == ["https://evil.example/feed"]


async def test_a_broken_state_file_is_set_aside(examples, tmp_path):
    """The plugin renames a damaged state file and starts with an empty state."""
    data, policy = tmp_path / "feeds", tmp_path / "policy.toml"
    data.mkdir(mode=0o700)
    (data / "feeds.json").write_text("{broken", encoding="utf-8")
    policy.write_text('[allow]\nwrite = ["$DATA"]\n', encoding="utf-8")
    async with PluginHost(data_dir=tmp_path) as host:
        feeds = await host.load(examples / "feeds", policy=policy)
        assert await feeds.call("entries") == []
    assert (data / "feeds.json.broken").read_text(encoding="utf-8") == "{broken"
