"""A request may be refused before its URL is parsed: never another decision, only an earlier one."""

import itertools
from typing import Any

import httpx
import pytest

from nyx_stream.errors import NetworkDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin

_CONNECT = ("api.example.com", "*.example.com:8080", "10.0.0.0/8", "127.0.0.1:80", "localhost")
_REQUEST = ("https://api.example.com/v1/**", "GET http://*.example.com", "http://10.0.0.7:81", "POST https://b.example")
_HOSTS = (
    "api.example.com",
    "a.example.com",
    "example.com",
    "10.0.0.7",
    "127.0.0.1",
    "localhost",
    "b.example",
    "0x7f.1",
)
_PORTS = (None, 80, 81, 443, 8080, 99999)


@pytest.mark.parametrize("denied", [(), ("api.example.com",), ("*.example.com",), ("10.0.0.0/8", "127.0.0.0/8")])
def test_an_origin_that_may_not_be_dialled_has_no_request_that_is_allowed(denied: tuple[str, ...]) -> None:
    """The law behind the early denial, over every small policy and URL of the tables."""
    rules = [*((rule, None) for rule in _CONNECT), *((None, rule) for rule in _REQUEST)]
    for connect, request in rules:
        policy = SandboxPolicy.locked_down().deny_connect_host(*denied)
        policy = policy.allow_connect_host(connect) if connect else policy.allow_request(request or "")
        guard = SandboxGuard(policy)
        for scheme, host, port in itertools.product(("http", "https"), _HOSTS, _PORTS):
            if guard.judge_origin(host, port or {"http": 80, "https": 443}[scheme]).allowed:
                continue
            url = f"{scheme}://{host}{'' if port is None else f':{port}'}/v1/x"
            for method in ("GET", "POST"):
                assert not guard.judge_request(method, url).decision.allowed


@pytest.mark.parametrize("url", ["https://evil.example.net/a?b=c", "http://127.0.0.1:1/", "https://api.example.com/v2"])
async def test_early_and_late_denials_say_the_same(kind: Any, url: str) -> None:
    """Refused as text or as a request object: the same error, the same audit event, the same request on it."""
    policy = SandboxPolicy.locked_down().allow_request("https://api.example.com/v1/**")
    plugin = Plugin(policy, kind=kind)
    async with plugin.client() as client:
        with pytest.raises(NetworkDenied) as early:
            await client.get(url)
        with pytest.raises(NetworkDenied) as late:
            await client.send(client.build_request("GET", url))
    assert str(early.value) == str(late.value)
    assert early.value.request.url == late.value.request.url == url  # type: ignore[attr-defined]
    first, second = plugin.events
    assert (first.action, first.target, first.reason) == (second.action, second.target, second.reason)


@pytest.mark.parametrize("url", ["HTTPS://API.example.com/v1/x", "https://api.example.com./v1/x", "/v1/x", "v1/x"])
async def test_spellings_that_are_not_plain_are_decided_after_parsing(kind: Any, url: str) -> None:
    """Another spelling of a granted URL, or one relative to `base_url`, is not denied for its text."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_request("https://api.example.com/v1/**"))
    assert guard.judge_request("GET", httpx.URL("https://api.example.com/").join(url)).decision.allowed
    plugin = Plugin(guard.policy, NamedNetwork(1), kind)
    async with plugin.client(base_url="https://api.example.com") as client:
        with pytest.raises(client.adapter.library.ConnectError):
            await client.get(url)
    assert plugin.denials == []
