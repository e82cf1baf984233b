"""The network backend and the dialer: which addresses are tried, the peer that was checked, attribution."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from nyx_stream import attribution
from nyx_stream.capabilities.network import MAX_ADDRESSES, Dialer, DialRefused, NetworkBackend, PeerMismatch
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Server, loopback, reply, until


@pytest.fixture
async def silent() -> AsyncIterator[socket.socket]:
    """A listening socket whose backlog is full, so that a connection to it neither opens nor fails."""
    if sys.platform != "linux":
        pytest.skip("other systems have no second loopback address, or refuse when the backlog is full")
    with socket.create_server(("127.0.0.2", 0), backlog=0) as listening, socket.socket() as filling:
        filling.setblocking(False)
        filling.connect_ex(listening.getsockname())
        yield listening


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_an_address_that_refuses_is_passed_over() -> None:
    """The next address is tried at once, and the result names the one that answered."""
    async with Server() as server:
        sock, address = await NetworkBackend().dial(["::1", "127.0.0.1"], server.port)
        with sock:
            assert (address, sock.getpeername()) == ("127.0.0.1", ("127.0.0.1", server.port))


async def test_an_address_that_does_not_answer_does_not_delay_the_next(silent: socket.socket) -> None:
    """Another attempt starts beside it, and the losing attempt leaves no socket open."""
    port = silent.getsockname()[1]
    with socket.create_server(("127.0.0.1", port)):
        before = _descriptors()
        sock, address = await NetworkBackend().dial(["127.0.0.2", "127.0.0.1"], port)
        sock.close()
        assert (address, _descriptors()) == ("127.0.0.1", before)


async def test_a_cancelled_attempt_leaves_no_socket(silent: socket.socket) -> None:
    """Cancelling the caller closes every socket that is being connected."""
    before = _descriptors()
    task = asyncio.create_task(NetworkBackend().dial(["127.0.0.2", "127.0.0.2"], silent.getsockname()[1]))
    await until(lambda: _descriptors() > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _descriptors() == before


async def test_the_error_of_the_system_is_raised_if_every_address_refuses() -> None:
    """With its own class."""
    with pytest.raises(ConnectionRefusedError):
        await NetworkBackend().dial(["127.0.0.1", "127.0.0.1"], 1)


@pytest.mark.parametrize(
    ("answer", "tried"),
    [
        ([f"1.1.1.{n}" for n in range(200)], [f"1.1.1.{n}" for n in range(MAX_ADDRESSES)]),
        (["1.1.1.1", "1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"]),
        (
            [*(f"2606:4700::{n}" for n in range(1, 20)), *(f"1.1.1.{n}" for n in range(20))],
            [*(f"2606:4700::{n}" for n in range(1, 5)), *(f"1.1.1.{n}" for n in range(4))],
        ),
        (
            [*(f"2606:4700::{n}" for n in range(1, 20)), "1.1.1.1"],
            [*(f"2606:4700::{n}" for n in range(1, 8)), "1.1.1.1"],
        ),
    ],
)
async def test_few_addresses_are_tried(answer: list[str], tried: list[str]) -> None:
    """A look-up with two hundred dead answers costs no more than the bound, and both families get their share."""
    network = NamedNetwork(1, {"api.example.com": [answer]}, dead=frozenset(answer))
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
    with pytest.raises(ConnectionRefusedError):
        await Dialer(SandboxGuard(policy), network).dial("api.example.com", 443)
    assert network.dialled == tried


async def test_a_peer_that_is_not_the_checked_address_is_refused(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel connects elsewhere (a redirecting firewall, a hooked connect), nothing is sent there."""
    async with Server() as server:
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect

        async def redirected(sock: socket.socket, _address: Any) -> None:
            await connect(sock, ("127.0.0.1", server.port))

        monkeypatch.setattr(loop, "sock_connect", redirected)
        network = NamedNetwork(server.port)
        network.dial = partial(NetworkBackend.dial, network)  # type: ignore[method-assign]
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
        async with Plugin(policy, network, kind).client() as client:
            with pytest.raises(client.adapter.library.ConnectError, match="instead of"):
                await client.get("http://api.example.com/")
        with pytest.raises(PeerMismatch):
            await network.dial(["127.0.0.2"], server.port)
        with pytest.raises(PeerMismatch):
            await network.dial(["127.0.0.1"], server.port + 1)
        assert server.requests == []


async def test_the_default_network_resolves_and_dials() -> None:
    """`localhost` resolves to loopback, and a socket to it is connected and does not block."""
    network = NetworkBackend()
    async with Server() as server:
        addresses = await network.resolve("localhost", server.port)
        assert set(addresses) <= {"127.0.0.1", "::1"}
        sock, _ = await network.dial(["127.0.0.1"], server.port)
        with sock:
            assert sock.getpeername() == ("127.0.0.1", server.port)
            assert not sock.getblocking()


async def test_localhost_is_dialled_where_it_is_named(kind: Any) -> None:
    """A rule that names a loopback host opens loopback."""
    async with Server(reply(200, b"x")) as server:
        policy = SandboxPolicy.locked_down().allow_connect_host("localhost")
        async with Plugin(policy, kind=kind).client() as client:
            assert (await client.get(f"http://localhost:{server.port}/")).text == "x"
            assert server.requests[0].header("host") == f"localhost:{server.port}"


async def test_one_tls_context_for_all(authority: Any) -> None:
    """The default trust is made once, in a thread, and shared by all clients of the network."""
    network = NetworkBackend()
    first, second = await asyncio.gather(network.tls(), network.tls())
    assert first is second is await network.tls()
    assert first.check_hostname


async def test_system_calls_are_the_hosts_and_bodies_the_plugins(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tripwire must not attribute a connection to the plugin, nor a plugin's generator to the host."""
    seen: list[tuple[str, str | None]] = []
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def watched(sock: socket.socket, address: Any) -> None:
        seen.append(("connect", attribution.running.get()))
        await connect(sock, address)

    async def pieces() -> AsyncIterator[bytes]:
        seen.append(("body", attribution.running.get()))
        yield b"x"

    monkeypatch.setattr(loop, "sock_connect", watched)
    async with Server() as server:
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
        async with Plugin(policy, NamedNetwork(server.port), kind).client() as client:
            with attribution.as_plugin("weather"):
                await client.post("http://api.example.com/", content=pieces())
    assert seen == [("connect", None), ("body", "weather")]


async def test_each_request_and_each_dial_is_one_event(kind: Any) -> None:
    """Two requests over one connection: two decisions and one dial, in the plugin's name."""
    async with Server() as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            await client.get(f"{server.url}/a?b=c")
            await client.post(f"{server.url}/d")
    said = [(event.plugin, event.capability, event.action, event.target, event.allowed) for event in plugin.events]
    where = f"127.0.0.1:{server.port}"
    assert said == [
        ("weather", "http", "GET", f"http://{where}/a?b=c", True),
        ("weather", "connect", "connect", f"{where} at 127.0.0.1", True),
        ("weather", "http", "POST", f"http://{where}/d", True),
    ]


async def test_no_connection_outlives_its_client(kind: Any) -> None:
    """Closing waits until every descriptor is gone."""
    import psutil

    process = psutil.Process()
    async with Server(reply(200, b"x")) as server:
        async with loopback(server, kind=kind).client() as client:
            await asyncio.gather(*[client.get(server.url) for _ in range(5)])
            ports = [c.raddr.port for c in process.net_connections("tcp") if c.raddr]
            assert server.port in ports
        ports = [c.raddr.port for c in process.net_connections("tcp") if c.raddr]
        assert server.port not in ports


async def test_the_dialer_decides_by_itself() -> None:
    """A connection that no request asked for is refused for its origin, before any look-up."""
    network = NamedNetwork(1)
    with pytest.raises(DialRefused):
        await Dialer(SandboxGuard(SandboxPolicy.locked_down()), network).connect("evil.example.net", 443)
    assert network.looked_up == []


def test_a_network_costs_no_import_of_an_http_client() -> None:
    """A host makes one for all its plugins before any of them asks for HTTP."""
    code = """if True:
        import sys
        from nyx_stream.capabilities.http import NetworkBackend
        NetworkBackend()
        sys.exit("httpx" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
