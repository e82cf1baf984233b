"""The second gate: the race for an address, the peer that was checked, and whose system calls these are."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream import attribution
from nyx_stream.capabilities.dialling import Dialler, DialRefused
from nyx_stream.capabilities.happy_eyeballs import ATTEMPTS, alternate, first_connected
from nyx_stream.capabilities.http import Network
from nyx_stream.capabilities.network import PeerMismatch
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Server, loopback, reply, until


class _Dials:
    """Dials that end as a table says: connected, refused, or never."""

    def __init__(self, **ends: str) -> None:
        self.ends = ends
        self.tried: list[str] = []
        self.cancelled: list[str] = []
        self.sockets: list[socket.socket] = []

    async def __call__(self, address: str, port: int) -> socket.socket:
        self.tried.append(address)
        end = self.ends.get(address, "refuse")
        if end == "refuse":
            raise ConnectionRefusedError(111, f"{address} refused")
        if end == "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(address)
                raise
        self.sockets.append(socket.socket())
        return self.sockets[-1]


async def test_a_dead_address_is_passed_over() -> None:
    """A refusal lets the next address try at once."""
    dials = _Dials(b="connect")
    sock, address = await first_connected(dials, ["a", "b", "c"], 1)
    sock.close()
    assert (address, dials.tried) == ("b", ["a", "b"])


async def test_a_silent_address_does_not_hold_up_the_next() -> None:
    """After its stagger an attempt has company, and the loser is cancelled."""
    dials = _Dials(a="hang", b="connect")
    sock, address = await first_connected(dials, ["a", "b"], 1)
    sock.close()
    assert (address, dials.cancelled) == ("b", ["a"])


async def test_attempts_are_few() -> None:
    """Two hundred dead answers cost no more than the bound, and the last refusal is the error."""
    dials = _Dials()
    with pytest.raises(ConnectionRefusedError):
        await first_connected(dials, [f"a{n}" for n in range(200)], 1)
    assert len(dials.tried) == ATTEMPTS


async def test_a_cancelled_race_leaves_no_attempt() -> None:
    """Cancelling the caller cancels every attempt under way."""
    dials = _Dials(a="hang", b="hang")
    task = asyncio.create_task(first_connected(dials, ["a", "b"], 1))
    await until(lambda: len(dials.tried) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(dials.cancelled) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ([], []),
        (["1.1.1.1", "1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"]),
        (["::1", "::2", "1.1.1.1"], ["::1", "1.1.1.1", "::2"]),
        (["1.1.1.1", "::1", "::2"], ["1.1.1.1", "::1", "::2"]),
    ],
)
def test_families_take_turns(given: list[str], order: list[str]) -> None:
    """One broken family holds up only every other attempt."""
    assert alternate(given) == order


async def test_a_peer_that_is_not_the_checked_address_is_refused(kind: Any) -> None:
    """Should the kernel lead elsewhere (a redirecting firewall, a hooked connect), nothing is sent there."""
    async with Server() as server:

        class Led(Network):
            async def resolve(self, host: str, port: int) -> list[str]:
                return ["93.184.215.14"]

            async def connect(self, sock: socket.socket, address: str, port: int) -> None:
                await super().connect(sock, "127.0.0.1", server.port)

        network = Led()
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
        async with Plugin(policy, network, kind).client() as client:
            with pytest.raises(client.adapter.library.ConnectError, match="instead of"):
                await client.get("http://api.example.com/")
        with pytest.raises(PeerMismatch):
            await network.dial("127.0.0.2", server.port)
        assert server.requests == []


async def test_the_default_network_resolves_and_dials() -> None:
    """`localhost` resolves to loopback, and a socket to it is connected and does not block."""
    network = Network()
    async with Server() as server:
        addresses = await network.resolve("localhost", server.port)
        assert set(addresses) <= {"127.0.0.1", "::1"}
        with await network.dial("127.0.0.1", server.port) as sock:
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
    network = Network()
    first, second = await asyncio.gather(network.tls(), network.tls())
    assert first is second is await network.tls()
    assert first.check_hostname


async def test_system_calls_are_the_hosts_and_bodies_the_plugins(kind: Any) -> None:
    """The tripwire must not take a dial for the plugin's, nor a plugin's generator for the host's."""
    seen: list[tuple[str, str | None]] = []

    class Watching(NamedNetwork):
        async def connect(self, sock: socket.socket, address: str, port: int) -> None:
            seen.append(("connect", attribution.running.get()))
            await super().connect(sock, address, port)

    async def pieces() -> AsyncIterator[bytes]:
        seen.append(("body", attribution.running.get()))
        yield b"x"

    async with Server() as server:
        network = Watching(server.port)
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
        async with Plugin(policy, network, kind).client() as client:
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


async def test_the_second_gate_decides_by_itself() -> None:
    """A connection that no request asked for is refused for its origin, before any look-up."""
    network = NamedNetwork(1)
    dialler = Dialler(SandboxGuard(SandboxPolicy.locked_down()), network)
    with pytest.raises(DialRefused):
        await dialler.connect("evil.example.net", 443)
    assert network.looked_up == []


def test_a_network_costs_no_import_of_an_http_client() -> None:
    """A host makes one for all its plugins before any of them asks for HTTP."""
    code = "import sys; from nyx_stream.capabilities.http import Network; Network(); sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
