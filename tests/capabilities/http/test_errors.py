"""Every fault reaches the plugin as the library's own error, with the request it belongs to."""

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from nyx_stream.capabilities.http import NetworkBackend
from nyx_stream.capabilities.http.service import FaultKind, HttpFault
from nyx_stream.errors import LimitExceeded, NetworkDenied, NyxError, Revoked
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Server, loopback, reply, until


@pytest.mark.parametrize("fault", FaultKind)
def test_every_fault_has_its_twin(kind: Any, fault: FaultKind) -> None:
    """The library's error of that name, with the same text."""
    mapped: Any = kind.adapter.error(HttpFault(fault, "text"), None)
    assert type(mapped) is getattr(kind.adapter.library, fault.value)
    assert str(mapped) == "text"


def test_other_errors_stay_what_they_are(kind: Any) -> None:
    """What a plugin's own request body raises is not the client's to change; nor is an error of another client."""
    for own in (ValueError("x"), kind.adapter.error(HttpFault(FaultKind.READ_ERROR, "x"), None)):
        assert kind.adapter.error(own, None) is own


def test_denials_are_request_errors_and_no_transport_errors(kind: Any) -> None:
    """A retry layer retries TransportError; what a rule decided it must leave alone."""
    library, adapter = kind.adapter.library, kind.adapter
    for own, base in ((adapter.denied, NetworkDenied), (adapter.revoked, Revoked), (adapter.exceeded, LimitExceeded)):
        assert issubclass(own, base)
        assert issubclass(own, library.RequestError)
        assert not issubclass(own, library.TransportError)


async def test_a_denial_says_who_what_and_why(kind: Any) -> None:
    """It is a PermissionError, carries its parts and its request, prints, and survives pickling."""
    async with Plugin(SandboxPolicy.locked_down(), kind=kind).client() as client:
        with pytest.raises(NetworkDenied, match=r"weather: http GET https://x\.example/ denied: no rule") as caught:
            await client.get("https://x.example/")
        assert isinstance(caught.value, PermissionError)
        assert caught.value.request.url == "https://x.example/"  # type: ignore[attr-defined]
        with pytest.raises(NetworkDenied) as sent:
            await client.send(client.build_request("GET", "https://x.example/"))
        assert sent.value.request.url == "https://x.example/"  # type: ignore[attr-defined]
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))


async def test_a_refused_connection_is_a_connect_error(kind: Any) -> None:
    """Nothing listens there."""
    async with Server() as server:
        plugin = loopback(server, kind=kind)
    async with plugin.client() as client:
        with pytest.raises(client.adapter.library.ConnectError) as caught:
            await client.get(server.url)
        assert caught.value.request.url == server.url


@pytest.mark.parametrize("tls", [False, True])
async def test_connecting_has_one_timeout(kind: Any, authority: Any, tls: bool) -> None:
    """Look-up, dial and handshake share the connect timeout; a server that never shakes hands is a ConnectTimeout."""
    listener = socket.create_server(("127.0.0.1", 0))
    network = NamedNetwork(
        listener.getsockname()[1], {"api.example.com": [["93.184.215.14"] if tls else ["<hang>"]]},
        trust=authority.client(),
    )  # fmt: skip
    with listener:
        plugin = Plugin(SandboxPolicy.locked_down().allow_connect_host("api.example.com"), network, kind)
        async with plugin.client() as client:
            timeout = client.adapter.library.Timeout(30, connect=0.1)
            with pytest.raises(client.adapter.library.ConnectTimeout):
                await client.get(f"http{'s' if tls else ''}://api.example.com/", timeout=timeout)


async def test_reading_and_waiting_have_their_timeouts(kind: Any) -> None:
    """A silent server is a ReadTimeout; no free connection is a PoolTimeout."""

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with Server(lambda _: silent()) as server:
        plugin = loopback(server, kind=kind)
        plugin.policy = plugin.policy.with_limits(connections=1)
        async with plugin.client() as client:
            library = client.adapter.library
            with pytest.raises(library.ReadTimeout):
                await client.get(server.url, timeout=library.Timeout(30, read=0.05))
            first = asyncio.create_task(client.get(server.url))
            await until(lambda: server.accepted >= 2)
            with pytest.raises(library.PoolTimeout):
                await client.get(server.url, timeout=library.Timeout(30, pool=0.05))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first


async def test_writing_has_its_timeout(kind: Any) -> None:
    """A server that takes nothing is a WriteTimeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with Plugin(SandboxPolicy.locked_down().allow_connect_host("127.0.0.1"), kind=kind).client() as client:
            timeout = client.adapter.library.Timeout(30, write=0.1)
            with pytest.raises(client.adapter.library.WriteTimeout):
                await client.post(url, content=bytes(30_000_000), timeout=timeout)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "RemoteProtocolError"),
        (b"nonsense\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nabc", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nabc", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n", "RemoteProtocolError"),
    ],
)  # fmt: skip
async def test_a_server_that_breaks_the_protocol(kind: Any, answer: bytes, error: str) -> None:
    """A missing, unreadable or truncated response is a RemoteProtocolError, and its connection is not used again."""

    async def once() -> AsyncIterator[bytes]:
        yield answer

    async with (
        Server(lambda r: once() if r.target == "/bad" else reply(200)) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(getattr(client.adapter.library, error)) as caught:
            await client.get(f"{server.url}/bad")
        assert caught.value.request.method == "GET"
        assert (await client.get(server.url)).status_code == 200


async def test_an_early_answer_counts(kind: Any) -> None:
    """A server may answer and close before it has read the body; its answer is the response."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(413, b"too much", connection="close"))
        await writer.drain()
        writer.close()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield bytes(100_000)
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        Plugin(SandboxPolicy.locked_down().allow_connect_host("127.0.0.1"), kind=kind).client() as client,
    ):
        # A reset may throw the answer away before it is read: the kernel's choice, and httpx's error for it.
        with suppress(client.adapter.library.ReadError):
            assert (await client.post(url, content=pieces())).status_code == 413


async def test_a_cancelled_request_frees_its_connection(kind: Any) -> None:
    """Cancelling a request while it waits for the head or the body closes it and leaves the pool usable."""

    async def slow(head: bytes) -> AsyncIterator[bytes]:
        yield head
        await asyncio.Event().wait()

    heads = {"/head": b"", "/body": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"}
    async with Server(lambda r: slow(heads[r.target]) if r.target in heads else reply(200)) as server:
        plugin = loopback(server, kind=kind)
        plugin.policy = plugin.policy.with_limits(connections=1)
        async with plugin.client() as client:
            for count, target in enumerate(heads, 1):
                task = asyncio.create_task(client.get(server.url + target))
                await until(lambda count=count: len(server.requests) >= count)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await client.get(server.url)).status_code == 200


async def test_a_cancelled_look_up_leaves_nothing(kind: Any) -> None:
    """Cancelling while the name is looked up frees the place in the pool."""
    async with Server(reply(200, b"x")) as server:
        network = NamedNetwork(server.port, {"api.example.com": [["<hang>"], ["93.184.215.14"]]})
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com").with_limits(connections=1)
        async with Plugin(policy, network, kind).client() as client:
            task = asyncio.create_task(client.get("http://api.example.com/"))
            await until(lambda: network.looked_up)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get("http://api.example.com/")).text == "x"


async def test_errors_of_nyx_are_nyx_errors(kind: Any) -> None:
    """A host catches one base class."""
    for own in (kind.adapter.denied, kind.adapter.revoked, kind.adapter.exceeded):
        assert issubclass(own, NyxError)


async def test_a_resolver_that_fails_is_a_connect_error(kind: Any) -> None:
    """`socket.gaierror` is an OSError of the look-up."""

    class Failing(NetworkBackend):
        async def resolve(self, host: str, port: int) -> list[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
    async with Plugin(policy, Failing(), kind).client() as client:
        with pytest.raises(client.adapter.library.ConnectError, match="not known"):
            await client.get("http://api.example.com/")
