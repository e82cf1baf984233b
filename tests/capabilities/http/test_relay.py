"""A body that is relayed has the same bytes, limits and errors as one that is read, with every framing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import pytest

from nyx_stream.capabilities.http.exchange import CHUNKS_AT_ONCE
from nyx_stream.capabilities.http.local_service import LocalHttpService, ResponseBody
from nyx_stream.capabilities.http.service import FaultKind, HttpFault, HttpRequest, Timeouts
from nyx_stream.capabilities.http.transport.byte_stream import READ_SIZE
from nyx_stream.errors import LimitExceeded, Revoked
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Plugin, Received, Server, faults, loopback, reply, until

_BODY = bytes(range(256)) * 1024
_HEAD = b"HTTP/1.1 200 OK\r\n"


class _Sink:
    """Keeps what it is given; is full after each `most` chunks until it is drained."""

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._room = 0
        self.chunks: list[bytes] = []

    @property
    def whole(self) -> bytes:
        """All that was taken."""
        return b"".join(self.chunks)

    def offer(self, chunk: bytes | memoryview) -> bool:
        assert self._room > 0, "offered while it is full"
        assert len(chunk) > 0
        self.chunks.append(bytes(chunk))
        self._room -= 1
        return self._room > 0

    async def drain(self) -> None:
        self._room = self._most
        await asyncio.sleep(0)


async def _chunked() -> AsyncIterator[bytes]:
    yield _HEAD + b"transfer-encoding: chunked\r\n\r\n"
    for start in range(0, len(_BODY), 5000):
        piece = _BODY[start : start + 5000]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


async def _until_closed() -> AsyncIterator[bytes]:
    yield _HEAD + b"\r\n"
    yield _BODY


async def _first(head: bytes, body: bytes, rest: bytes = b"", *, hold: bool = False) -> AsyncIterator[bytes]:
    yield head
    yield body
    await asyncio.sleep(0.01)
    yield rest
    if hold:
        await asyncio.Event().wait()


def _by_framing(request: Received) -> "bytes | AsyncIterator[bytes]":
    if request.target == "/chunked":
        return _chunked()
    if request.target == "/until-closed":
        return _until_closed()
    return reply(200, _BODY)


@asynccontextmanager
async def _response(
    service: LocalHttpService, url: str, *, method: str = "GET", read: float | None = None
) -> AsyncIterator[ResponseBody]:
    reply = await service.send(HttpRequest(method, url, [], timeouts=Timeouts(read=read)))
    try:
        yield reply.body
    finally:
        await reply.body.aclose()


async def _relayed(service: LocalHttpService, url: str, sink: _Sink, *, read: float | None = None) -> None:
    async with _response(service, url, read=read) as body:
        await body.relay(sink)


async def _whole(service: LocalHttpService, url: str) -> bytes:
    async with _response(service, url) as body:
        return await body.read_all()


@pytest.mark.parametrize("most", [1, 3, 10**6])
@pytest.mark.parametrize("framing", ["counted", "chunked", "until-closed"])
async def test_every_byte_is_passed_on(framing: str, most: int) -> None:
    """In order, however often the sink is full."""
    sink = _Sink(most)
    async with Server(_by_framing) as server, loopback(server).serving() as service:
        await _relayed(service, f"{server.url}/{framing}", sink)
    assert sink.whole == _BODY
    assert max(map(len, sink.chunks)) <= READ_SIZE


@pytest.mark.parametrize("relayed", [True, False])
async def test_chunks_of_one_byte_leave_the_loop_to_others(relayed: bool) -> None:
    """Thousands of them fit into what is read at once; no more than some are handed on in one turn."""
    pieces = partial(_first, _HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000, b"0\r\n\r\n")
    sink, turns = _Sink(10**6), []

    async def count() -> None:
        while True:
            turns.append(len(sink.chunks))
            await asyncio.sleep(0)

    async with (
        Server(lambda _: pieces()) as server,
        loopback(server).serving() as service,
        _response(service, server.url) as body,
    ):
        counting = asyncio.create_task(count())
        if relayed:
            await body.relay(sink)
        else:
            await sink.drain()
            while (chunk := await body.read()) is not None:
                sink.offer(chunk)
        counting.cancel()
    assert sink.whole == b"x" * 5000
    assert max(after - before for before, after in pairwise(turns)) <= 2 * CHUNKS_AT_ONCE


async def test_a_counted_body_leaves_the_connection_of_use() -> None:
    """What went past h11 was the whole body: the next exchange goes over the same connection."""
    async with Server(reply(200, _BODY)) as server, loopback(server).serving() as service:
        for _ in range(3):
            sink = _Sink()
            await _relayed(service, server.url, sink)
            assert sink.whole == _BODY
        assert await _whole(service, server.url) == _BODY
        assert server.accepted == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
async def test_a_connection_that_is_to_be_closed_is_not_kept(head: bytes) -> None:
    """The server said so in the head of the response."""
    answer = head + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY
    async with Server(answer) as server, loopback(server).serving() as service:
        for _ in range(2):
            await _relayed(service, server.url, _Sink())
        assert server.accepted == 2


async def test_bytes_beyond_the_body_are_nobodys() -> None:
    """They do not reach the sink, and not the next exchange."""
    answer = _HEAD + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY + _HEAD + b"content-length: 4\r\n\r\nevil"
    async with Server(answer) as server, loopback(server).serving() as service:
        for _ in range(2):
            sink = _Sink()
            await _relayed(service, server.url, sink)
            assert sink.whole == _BODY
        assert server.accepted == 2


async def test_a_body_that_is_cut_is_an_error() -> None:
    """Where its length is known, and where its chunks do not end."""
    counted, chunked = b"content-length: 400000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n30d40\r\n"
    for framing in (counted, chunked):
        pieces = partial(_first, _HEAD + framing, bytes(100_000))
        async with Server(lambda _, cut=pieces: cut()) as server, loopback(server).serving() as service:
            sink = _Sink()
            with faults(FaultKind.REMOTE_PROTOCOL_ERROR):
                await _relayed(service, server.url, sink)
            assert len(sink.whole) == 100_000


async def test_a_response_without_a_body_ends_at_once() -> None:
    """Its headers may speak of one: a HEAD, a 304."""

    def answer(request: Received) -> bytes:
        return _HEAD + b"content-length: 70000\r\n\r\n" if request.method == "HEAD" else reply(304, etag="x")

    async with Server(answer) as server, loopback(server).serving() as service:
        for method in ("HEAD", "GET", "HEAD"):
            sink = _Sink()
            async with _response(service, server.url, method=method) as body:
                await body.relay(sink)
            assert sink.whole == b""
        assert server.accepted == 1


@pytest.mark.parametrize("framing", ["counted", "chunked", "until-closed"])
async def test_a_relayed_body_keeps_within_its_bound(framing: str) -> None:
    """The sink gets no byte beyond `response_bytes`."""
    async with Server(_by_framing) as server:
        policy = (
            SandboxPolicy.locked_down()
            .allow_connect_host(f"127.0.0.1:{server.port}")
            .with_limits(response_bytes=100_000)
        )
        async with Plugin(policy).serving() as service:
            sink = _Sink()
            with pytest.raises(LimitExceeded, match="response_bytes"):
                await _relayed(service, f"{server.url}/{framing}", sink)
            assert len(sink.whole) <= 100_000


async def test_a_peer_that_says_nothing_is_waited_for_no_longer_than_asked() -> None:
    """The read timeout counts from the last byte."""
    head = _HEAD + b"content-length: 400000\r\n\r\n"
    answer = partial(_first, head, bytes(70_000), bytes(30_000), hold=True)
    async with (
        Server(lambda _: answer()) as server,
        loopback(server).serving() as service,
    ):
        sink = _Sink()
        with faults(FaultKind.READ_TIMEOUT):
            await _relayed(service, server.url, sink, read=0.2)
        assert len(sink.whole) == 100_000


async def test_a_revoked_lease_ends_a_relay_at_once() -> None:
    """And the sink gets nothing after that, be it here already."""
    head = _HEAD + b"content-length: 400000\r\n\r\n"
    async with Server(lambda _: _first(head, bytes(100_000), hold=True)) as server:
        plugin = loopback(server)

        class Revoking(_Sink):
            def offer(self, chunk: bytes | memoryview) -> bool:
                more = super().offer(chunk)
                plugin.lease.revoke("over")
                return more

        async with plugin.serving() as service:
            sink = Revoking()
            with pytest.raises(Revoked, match="over"):
                await _relayed(service, server.url, sink)
        assert len(sink.chunks) == 1


async def test_a_revoked_lease_ends_a_relay_whose_sink_takes_nothing() -> None:
    """The plugin that does not read what it asked for keeps no connection for that."""
    waiting = asyncio.Event()

    class Full(_Sink):
        async def drain(self) -> None:
            waiting.set()
            await asyncio.Event().wait()

    async with Server(reply(200, _BODY)) as server:
        plugin = loopback(server)
        async with plugin.serving() as service:
            relaying = asyncio.create_task(_relayed(service, server.url, Full()))
            await waiting.wait()
            plugin.lease.revoke("over")
            async with asyncio.timeout(30):
                with pytest.raises(Revoked, match="over"):
                    await relaying


async def test_what_a_sink_raises_ends_the_relay() -> None:
    """It comes out as it is, and the connection is closed."""

    class Broken(_Sink):
        def offer(self, chunk: bytes | memoryview) -> bool:
            if len(self.chunks) == 2:
                raise BrokenPipeError("gone")
            return super().offer(chunk)

    async with Server(reply(200, _BODY)) as server, loopback(server).serving() as service:
        with pytest.raises(BrokenPipeError, match="gone"):
            await _relayed(service, server.url, Broken())
        assert await _whole(service, server.url) == _BODY
        assert server.accepted == 2


@pytest.mark.parametrize("framing", ["counted", "chunked"])
async def test_after_a_relay_there_is_nothing_left_to_read(framing: str) -> None:
    """Its connection is not read again: what comes there is another exchange's."""
    async with Server(_by_framing) as server, loopback(server).serving() as service:
        async with _response(service, f"{server.url}/{framing}") as body:
            sink = _Sink()
            await body.relay(sink)
            async with asyncio.timeout(5):
                assert await body.read_all() == b""
                assert await body.read() is None
                await body.relay(sink)
        assert sink.whole == _BODY


@pytest.mark.parametrize("relayed", [True, False])
@pytest.mark.parametrize("framing", [b"content-length: 400000\r\n", b""])
async def test_a_service_that_is_closed_cuts_a_body(framing: bytes, relayed: bool) -> None:
    """One that ends with its connection does not look whole."""
    answer = partial(_first, _HEAD + framing + b"\r\n", bytes(100_000), hold=True)
    async with (
        Server(lambda _: answer()) as server,
        loopback(server).serving() as service,
        _response(service, server.url) as body,
    ):
        sink = _Sink()
        reading = asyncio.create_task(body.relay(sink) if relayed else body.read_all())
        await until(lambda: not relayed or len(sink.whole) == 100_000)
        await service.aclose()
        with pytest.raises(HttpFault):
            await reading


@pytest.mark.parametrize("framing", ["counted", "chunked", "until-closed"])
async def test_a_budget_of_bytes_ends_a_relay(framing: str) -> None:
    """The refusal is audited once, and the sink gets no byte beyond the budget."""
    async with Server(_by_framing) as server:
        plugin = loopback(server)
        async with plugin.serving() as service:
            plugin.lease.limit({"bytes_in": 100_000})
            sink = _Sink()
            with pytest.raises(Revoked, match="bytes_in"):
                await _relayed(service, f"{server.url}/{framing}", sink)
            assert len(sink.whole) <= 100_000
            assert len(plugin.denials) == 1


async def test_a_body_of_exactly_what_is_allowed_is_passed_on() -> None:
    """`response_bytes` is a bound that may be reached."""
    async with Server(_by_framing) as server:
        policy = (
            SandboxPolicy.locked_down()
            .allow_connect_host(f"127.0.0.1:{server.port}")
            .with_limits(response_bytes=len(_BODY))
        )
        async with Plugin(policy).serving() as service:
            for framing in ("counted", "chunked", "until-closed"):
                sink = _Sink()
                await _relayed(service, f"{server.url}/{framing}", sink)
                assert sink.whole == _BODY


async def test_a_slow_sink_is_not_a_slow_peer() -> None:
    """The read timeout doesn't count time in which the sink takes nothing."""

    class Slow(_Sink):
        async def drain(self) -> None:
            await asyncio.sleep(0.15)
            await super().drain()

    async with Server(_by_framing) as server, loopback(server).serving() as service:
        sink = Slow(6)
        await _relayed(service, f"{server.url}/counted", sink, read=0.1)
        assert sink.whole == _BODY


@pytest.mark.parametrize("case", ["idle peer", "trickling peer", "stuck sink", "slow sink"])
@pytest.mark.parametrize("framing", [b"content-length: 400000\r\n", b""])
async def test_a_relay_does_not_outlast_its_request(framing: bytes, case: str) -> None:
    """Whoever it waits for: `request_timeout` is the time from connecting to the last byte."""

    async def answer() -> AsyncIterator[bytes]:
        yield _HEAD + framing + b"\r\n" + bytes(100)
        while True:
            await asyncio.sleep(30 if case == "idle peer" else 0.01)
            yield bytes(100)

    class Sink(_Sink):
        async def drain(self) -> None:
            if self.chunks:
                await asyncio.sleep({"stuck sink": 30, "slow sink": 0.05}.get(case, 0))
            await super().drain()

    async with Server(lambda _: answer()) as server:
        plugin = loopback(server)
        plugin.policy = plugin.policy.with_limits(request_timeout="1s")
        async with plugin.serving() as service:
            with faults(FaultKind.READ_TIMEOUT):
                async with asyncio.timeout(10):
                    await _relayed(service, server.url, Sink(1))


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_slow_reader_does_not_outlast_its_request(chunked: bool) -> None:
    """Though what it reads has long arrived: at the wire, or among what h11 has."""
    pieces = partial(_first, _HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000, b"0\r\n\r\n")
    async with Server(lambda _: pieces() if chunked else reply(200, bytes(2**22))) as server:
        plugin = loopback(server)
        plugin.policy = plugin.policy.with_limits(request_timeout="1s")

        async def read(service: LocalHttpService) -> None:
            async with _response(service, server.url) as body:
                while True:
                    if await body.read() is None:
                        return
                    await asyncio.sleep(0.1)

        async with plugin.serving() as service:
            with faults(FaultKind.READ_TIMEOUT):
                async with asyncio.timeout(10):
                    await read(service)


@pytest.mark.parametrize("ended_by", ["revocation", "ttl"])
async def test_a_lease_ends_in_the_turn_in_which_the_time_is_over(ended_by: str) -> None:
    """On a blocked loop the deadline and the end of the lease come at once; everything held by the lease still ends."""
    ended = []
    async with Server(_by_framing) as server:
        plugin = loopback(server)
        plugin.policy = plugin.policy.with_limits(request_timeout="500ms")
        async with plugin.serving() as service:
            plugin.lease.hold(lambda: ended.append("held before"))

            class Stuck(_Sink):
                async def drain(self) -> None:
                    loop = asyncio.get_running_loop()
                    if ended_by == "ttl":
                        plugin.lease.limit({"ttl": 0.6})
                    else:
                        loop.call_later(0.6, plugin.lease.revoke, "enough")
                    loop.call_later(0.1, time.sleep, 0.7)
                    await asyncio.sleep(30)

            with pytest.raises(Revoked, match="enough" if ended_by == "revocation" else "expired"):
                await _relayed(service, f"{server.url}/counted", Stuck())
    assert ended == ["held before"]
