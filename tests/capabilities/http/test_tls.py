"""Bodies over TLS: asyncio decrypts ahead of the reader, and nothing of that is lost or misattributed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest

from nyx_stream.capabilities.http.service import HttpRequest
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Received, Server

_BODY = bytes(range(256)) * 2**14
_HEAD = b"HTTP/1.1 200 OK\r\n"
_URL = "https://api.example/"


class _Slow:
    """A sink that is full after a few chunks, and then takes its time."""

    def __init__(self) -> None:
        self.whole = bytearray()
        self.begun = asyncio.Event()
        self._room = 0

    def offer(self, chunk: bytes | memoryview) -> bool:
        self.whole += chunk
        self._room -= 1
        return self._room > 0

    async def drain(self) -> None:
        self._room = 3
        self.begun.set()
        await asyncio.sleep(0.001)


@contextmanager
def _closing(context: ssl.SSLContext, answer: bytes, *, notify: bool) -> Iterator[int]:
    """The port of a server that answers once and closes without waiting, with or without TLS's own end."""

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as peer:
            peer.recv(2**16)
            peer.sendall(answer)
            if notify:
                peer.setblocking(False)
                peer.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
    thread.join()


def _plugin(port: int, authority: Any) -> Plugin:
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example:443")
    return Plugin(policy, NamedNetwork(port, trust=authority.client()))


@pytest.mark.parametrize("notify", [True, False])
@pytest.mark.parametrize("framing", [b"content-length: %d\r\n" % len(_BODY), b""])
@pytest.mark.parametrize("relayed", [True, False])
async def test_a_slow_reader_gets_all_that_came_before_the_end(
    authority: Any, relayed: bool, framing: bytes, notify: bool
) -> None:
    """The end is there long before what was sent ahead of it has been read."""
    answer = _HEAD + b"connection: close\r\n" + framing + b"\r\n" + _BODY
    sink = _Slow()
    with _closing(authority.server("api.example"), answer, notify=notify) as port:
        async with _plugin(port, authority).serving() as service:
            body = (await service.send(HttpRequest("GET", _URL, []))).body
            if relayed:
                await body.relay(sink)
            else:
                while (chunk := await body.read()) is not None:
                    sink.offer(chunk)
                    await sink.drain()
    assert sink.whole == _BODY


async def test_an_answer_that_nobody_asked_for_is_not_the_next_one(authority: Any) -> None:
    """It came after the end of a relayed body, and TLS has already read it from the kernel."""
    over, sent, sink = asyncio.Event(), asyncio.Event(), _Slow()

    async def twice() -> AsyncIterator[bytes]:
        length = b"content-length: 100000\r\n\r\n"
        yield _HEAD + length
        await sink.begun.wait()
        yield bytes(100_000)
        await over.wait()
        yield _HEAD + b"content-length: 4\r\n\r\nevil"
        sent.set()
        await asyncio.Event().wait()

    def answer(request: Received) -> "bytes | AsyncIterator[bytes]":
        return twice() if request.target == "/twice" else _HEAD + b"content-length: 4\r\n\r\ngood"

    async with Server(answer, context=authority.server("api.example")) as server:
        async with _plugin(server.port, authority).serving() as service:
            first = await service.send(HttpRequest("GET", _URL + "twice", []))
            await first.body.relay(sink)
            over.set()
            await sent.wait()
            for _ in range(5):  # turns, in which what is in the kernel is read
                await asyncio.sleep(0)
            second = await service.send(HttpRequest("GET", _URL, []))
            assert await second.body.read_all() == b"good"
            assert server.accepted == 2
        assert len(sink.whole) == 100_000
