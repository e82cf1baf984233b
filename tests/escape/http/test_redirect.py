"""A redirect is the server's word: every hop is judged like a first request, and leaves its secrets at the origin."""

from typing import Any

import pytest

from nyx_stream.capabilities.http.headers import why_not_follow
from nyx_stream.errors import NetworkDenied
from tests.capabilities.http.loopback import Received, Server, loopback, reply
from tests.escape.http.egress import cases, plugin, tls_server

_SECRETS = {"Authorization": "Bearer t", "X-Api-Key": "k", "Cookie": "s=1", "X-Custom": "c", "Proxy-X": "p"}


def _hops(case: dict[str, Any]) -> Any:
    hops = iter(case["hops"][1:])

    def answer(_: Received) -> bytes:
        status, _, value = next(hops, "200 ").partition(" ")
        if status == "200":
            name, _, value = value.partition(": ")
            return reply(200, b"end", **({name.lower(): value} if name else {}))
        return reply(int(status), location=value)

    return answer


@pytest.mark.parametrize("case", cases("redirect"))
async def test_redirect_case(case: dict[str, Any], kind: Any, authority: Any) -> None:
    """A refused hop is a denial and no connection; an allowed one arrives, without what was for the first origin."""
    async with tls_server(authority, _hops(case)) as server:
        one = plugin(case, authority, server, kind)
        async with one.client(follow_redirects=True) as client:
            sent = {"headers": case.get("request_headers", {}), "extensions": case.get("extensions", {})}
            ends = case["expect"] == "allow" or case["hops"][-1].startswith("200 ") or "extensions" in case
            if ends:
                assert (await client.get(case["url"], **sent)).text == "end"
            else:
                loops = len(case["hops"]) > client.max_redirects
                expected = client.adapter.library.TooManyRedirects if loops else NetworkDenied
                with pytest.raises(expected):
                    await client.get(case["url"], **sent)
                assert len(one.denials) == (0 if loops else 1)
            assert set(one.network.looked_up) <= {"api.example.com", "a.cdn.example.com"}  # type: ignore[union-attr]
            assert len(server.requests) <= client.max_redirects + 1
        last = server.requests[-1] if server.requests else None
        if last is not None and last.header("host") == "a.cdn.example.com":
            assert not {name.lower() for name, _ in last.headers} & {name.lower() for name in _SECRETS}


async def test_a_hop_to_another_origin_keeps_a_small_safe_set(kind: Any, authority: Any) -> None:
    """No credential, no custom header and no cookie without a domain crosses; on one origin all of them stay."""
    case = {"allow": ["https://api.example.com", "https://*.cdn.example.com"]}

    def answer(request: Received) -> bytes:
        if request.target == "/cross":
            return reply(302, location="https://a.cdn.example.com/x", set_cookie="own=1; Domain=example.com; Path=/")
        return reply(302, location="/end") if request.target == "/same" else reply(200)

    async with tls_server(authority, answer) as server:
        one = plugin(case, authority, server, kind)
        async with one.client(follow_redirects=True, headers=_SECRETS, cookies={"loose": "1"}) as client:
            await client.get("https://api.example.com/cross", headers={"Accept": "text/x"}, auth=("user", "word"))
            await client.get("https://api.example.com/same", auth=("user", "word"))
        crossed, stayed = server.requests[1], server.requests[3]
        names = {name.lower() for name, _ in crossed.headers}
        assert names <= {"host", "accept", "accept-encoding", "user-agent", "cookie"}
        assert (crossed.header("accept"), crossed.header("cookie")) == ("text/x", "own=1")
        assert stayed.header("authorization") == "Basic dXNlcjp3b3Jk"
        assert stayed.header("x-api-key") == "k"


@pytest.mark.parametrize("port_changes", [True, False])
async def test_another_port_is_another_origin(kind: Any, port_changes: bool) -> None:
    """Authorization stays on its port."""
    async with Server() as other:
        location = f"{other.url}/b" if port_changes else "/b"
        async with Server(lambda r: reply(307, location=location) if r.target == "/a" else reply()) as server:
            one = loopback(server, kind=kind)
            one.policy = one.policy.allow_connect_host(f"127.0.0.1:{other.port}")
            async with one.client(follow_redirects=True) as client:
                await client.post(f"{server.url}/a", content=b"x", headers={"Authorization": "t"})
            last = other.requests[-1] if port_changes else server.requests[-1]
            assert last.header("authorization") == (None if port_changes else "t")
            assert last.body == b"x"


async def test_the_policy_bounds_the_hops(kind: Any) -> None:
    """A plugin may ask for fewer redirects than its grant, never for more."""
    async with Server(reply(302, location="/")) as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.with_limits(redirects=3)
        async with one.client(follow_redirects=True, max_redirects=1000) as client:
            with pytest.raises(client.adapter.library.TooManyRedirects):
                await client.get(server.url)
            assert len(server.requests) == 4
            client.max_redirects = 1
            with pytest.raises(client.adapter.library.TooManyRedirects):
                await client.get(server.url)
            assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "scheme"),
    [
        ("", "http"), ("ftp://x/", "http"), ("file:///etc/passwd", "http"), ("javascript:1", "http"),
        ("HTTP://x/", "https"), ("http:x", "http"), ("https:", "https"), ("data:,x", "https"), ("ws://x/", "http"),
        ("//a@b/", "http"), ("http://a:b@c/", "http"), ("http://@c/", "http"), ("/\\x", "http"), ("\\\\x", "http"),
        ("http:\\\\x", "http"), (" http://x/", "http"), ("http://x/\n", "http"), ("http://x\x00/", "http"),
        ("ht\ttp://x/", "http"), ("x:80/y", "http"),
    ],
)  # fmt: skip
def test_a_location_that_may_not_be_followed(location: str, scheme: str) -> None:
    """Another scheme, a user name, a missing host, or a character that parsers read in two ways."""
    assert why_not_follow(location, scheme)


@pytest.mark.parametrize(
    ("location", "scheme"),
    [
        ("/a", "https"), ("a/b?x=1#f", "http"), ("?x", "http"), ("#f", "http"), ("//host/x", "https"),
        ("https://host/", "https"), ("HTTPS://host/a@b", "https"), ("http://host/?m=a@b", "http"),
        ("https://host/", "http"), ("http://[::1]:80/", "http"), ("/a:b", "http"),
    ],
)  # fmt: skip
def test_a_location_that_may_be_followed(location: str, scheme: str) -> None:
    """Relative and absolute targets of the same scheme, and http's step up to https."""
    assert why_not_follow(location, scheme) is None
