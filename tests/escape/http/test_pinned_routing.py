"""Whatever a plugin assigns on its client, a denied request goes nowhere."""

from typing import Any

import pytest

from nyx_stream.capabilities.http.exchange import Exchange
from nyx_stream.capabilities.http.local_service import LocalHttpService
from nyx_stream.capabilities.http.transport.connection import HttpConnection
from nyx_stream.capabilities.http.transport.pool import Pool
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import NetworkDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Plugin, Server, loopback, reply
from tests.escape.http.egress import reachable


@pytest.fixture
def locked(kind: Any) -> Plugin:
    """A plugin that is granted nothing."""
    return Plugin(SandboxPolicy.locked_down(), kind=kind)


@pytest.mark.parametrize("name", ["_transport", "_mounts", "_transport_for_url", "_init_transport", "_proxy_map"])
async def test_assigning_a_route_routes_nothing(locked: Plugin, name: str) -> None:
    """The library's private routing is not consulted."""
    async with Server() as server, locked.client() as client:
        library = client.adapter.library
        open_transport = library.AsyncHTTPTransport(trust_env=False)
        pattern = type("Every", (), {"matches": lambda *_: True})()
        values = {"_mounts": {pattern: open_transport}, "_transport_for_url": lambda _: open_transport}
        setattr(client, name, values.get(name, open_transport))
        for method in ("get", "post", "head"):
            with pytest.raises(NetworkDenied):
                await getattr(client, method)(server.url)
        with pytest.raises(NetworkDenied):
            await client.send(client.build_request("GET", server.url))
        assert server.accepted == 0


async def test_the_class_cannot_be_exchanged(locked: Plugin) -> None:
    """The library's own client class does not fit the object's layout."""
    async with Server() as server, locked.client() as client:
        with pytest.raises(TypeError):
            client.__class__ = client.adapter.library.AsyncClient
        with pytest.raises(NetworkDenied):
            await client.get(server.url)
        assert server.accepted == 0


async def test_the_librarys_methods_on_the_client_pass_the_gate(locked: Plugin) -> None:
    """Called past the guarded class, the library's own code still finds the gate as its transport."""
    async with Server() as server, locked.client() as client:
        plain = client.adapter.library.AsyncClient
        with pytest.raises(NetworkDenied):
            await plain.send(client, client.build_request("GET", server.url))
        with pytest.raises(NetworkDenied):
            await plain._send_single_request(client, client.build_request("GET", server.url))
        assert server.accepted == 0


async def test_a_granted_request_works_after_all_that(kind: Any) -> None:
    """The allowed twin: assignments do not take the client from its plugin either."""
    async with Server(reply(200, b"in")) as server:
        policy = SandboxPolicy.locked_down().allow_connect_host("127.0.0.1")
        async with Plugin(policy, kind=kind).client() as client:
            client._transport = None
            client._mounts = {}
            assert (await client.get(server.url)).text == "in"


@pytest.mark.parametrize(
    "choice",
    ["mounts", "proxy", "proxies", "transport", "verify", "cert", "limits", "http1", "http2", "trust_env", "app"],
)
def test_routes_trust_and_pools_are_not_to_be_chosen(kind: Any, choice: str) -> None:
    """The constructor names what it refuses."""
    service = LocalHttpService(SandboxGuard(SandboxPolicy.locked_down()), Lease("p", "http"))
    with pytest.raises(TypeError, match=choice):
        kind(service, **{choice: True})


async def test_no_attribute_leads_from_a_client_to_its_service(kind: Any) -> None:
    """Neither to the guard, the lease and the pool behind it: the walk takes every attribute but the dunders."""
    hidden = (SandboxGuard, Lease, LocalHttpService, Pool, Exchange, HttpConnection)
    async with (
        Server(reply(200, b"x" * 300_000)) as server,
        loopback(server, kind=kind).client() as client,
        client.stream("GET", server.url) as response,
    ):
        for start in (client, client._transport, response, response.stream):
            for value in reachable(start):
                assert not isinstance(value, hidden)
