"""A granted name may resolve to anything: what may be dialled is decided on every address of the one answer."""

import ipaddress
from typing import Any

import pytest

from nyx_stream.capabilities.network import MAX_ADDRESSES
from nyx_stream.errors import NetworkDenied
from tests.capabilities.http.loopback import Server, reply
from tests.escape.http.egress import cases, plugin, tls_server

_FIRST_PUBLIC = int(ipaddress.ip_address("93.184.216.1"))


def _answers(case: dict[str, Any]) -> tuple[dict[str, list[list[str]]], frozenset[str]]:
    """The look-ups of a case, and the addresses that refuse a connection."""
    dead: set[str] = set()

    def address(text: str, place: int) -> str:
        if not text.startswith("<refuse>"):
            return text
        name = text.removeprefix("<refuse>") or str(ipaddress.ip_address(_FIRST_PUBLIC + place))
        dead.add(name)
        return name

    answers = {
        name: [[address(text, place) for place, text in enumerate(answer)] for answer in successive]
        for name, successive in case["dns"].items()
    }
    return answers, frozenset(dead)


@pytest.mark.parametrize("case", cases("resolve"))
async def test_resolve_case(case: dict[str, Any], kind: Any, authority: Any) -> None:
    """A refused answer means no connection, a typed error and an audit event; an allowed one is dialled as checked."""
    answers, dead = _answers(case)
    async with tls_server(authority, reply(200, b"in", connection="close")) as server:
        one = plugin(case, authority, server, kind, answers=answers, dead=dead)
        async with one.client(timeout=0.2 if case.get("error") == "ConnectTimeout" else 30) as client:
            network: Any = one.network
            for _ in range(len(answers["api.example.com"]) - 1):
                assert (await client.get(case["url"])).text == "in"
            accepted = server.accepted
            if case["expect"] == "allow":
                assert (await client.get(case["url"])).text == "in"
                assert network.dialled[-1] in answers["api.example.com"][-1]
                return
            expected = getattr(client.adapter.library, case["error"]) if "error" in case else NetworkDenied
            if dead:
                expected = client.adapter.library.ConnectError
            with pytest.raises(expected) as caught:
                await client.get(case["url"])
            assert server.accepted == accepted
            assert len(network.dialled) - accepted <= MAX_ADDRESSES
            assert not isinstance(caught.value, client.adapter.library.TransportError) or expected is not NetworkDenied
            if expected is NetworkDenied:
                assert "granted" not in str(caught.value), "a hint at a line for the name, which is there"
                assert [event.capability for event in one.denials] == ["connect"]


@pytest.mark.parametrize("address", ["10.0.0.7", "fd00::1", "127.0.0.1"])
async def test_a_listed_private_address_is_dialled(address: str, authority: Any) -> None:
    """The allowed twin: where the policy lists the network too, the name may lead into it."""
    from nyx_stream.capabilities.http import GuardedClient

    case = {"allow": ["https://api.example.com"]}
    async with tls_server(authority, reply(200, b"in")) as server:
        one = plugin(case, authority, server, GuardedClient, answers={"api.example.com": [[address]]})
        one.policy = one.policy.allow_connect_host("10.0.0.0/8", "fd00::/8", "127.0.0.0/8")
        async with one.client() as client:
            assert (await client.get("https://api.example.com/")).text == "in"


async def test_a_denied_host_sees_no_connection(kind: Any) -> None:
    """What the text of a request decides is decided before any look-up or packet."""
    from nyx_stream.policy import SandboxPolicy
    from tests.capabilities.http.loopback import NamedNetwork, Plugin

    async with Server() as server:
        network = NamedNetwork(server.port)
        one = Plugin(SandboxPolicy.locked_down().allow_request("http://api.example.com/v1/**"), network, kind)
        async with one.client() as client:
            for url in ("http://evil.example.net/", "http://api.example.com/v2/x", "http://127.0.0.1/"):
                with pytest.raises(NetworkDenied):
                    await client.get(url)
        assert (server.accepted, network.looked_up, network.dialled) == (0, [], [])
        assert len(one.denials) == 3
