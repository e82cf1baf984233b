"""The byte stream below HTTP: it holds a reader's data, holds back a fast peer, and ends when told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from nyx_stream.capabilities.http.service import FaultKind
from nyx_stream.capabilities.http.transport.byte_stream import HIGH_WATER, RELAY_SIZE, ByteStream
from tests.capabilities.http.loopback import faults, until


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[ByteStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    stream = await ByteStream.over(ours, None, "")
    try:
        yield stream, theirs
    finally:
        theirs.close()
        await stream.aclose()


async def _write_on(stream: ByteStream) -> None:
    while True:
        if not stream.write(bytes(HIGH_WATER)):
            await stream.drain(30)


async def test_bytes_arrive_in_order_and_then_the_end() -> None:
    """What was sent before the end is read before it."""
    async with _pair() as (stream, peer):
        peer.send(b"one")
        assert await stream.read(30) == b"one"
        peer.send(b"two")
        peer.close()
        assert await stream.read(30) == b"two"
        assert await stream.read(30) == b""


async def test_a_reader_that_does_not_come_holds_the_peer_back() -> None:
    """No more than the high-water mark and one reading is kept; all of it is read in the end."""
    total = 8 * HIGH_WATER
    async with _pair() as (stream, peer):
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(peer, bytes(total)))
        await until(lambda: not stream._reading)
        assert stream._held < 2 * HIGH_WATER
        assert not sending.done()
        got = 0
        while got < total:
            got += len(await stream.read(30))
        await sending
        assert got == total


async def test_a_writer_waits_for_a_slow_peer() -> None:
    """A peer that takes nothing is a WriteTimeout; one that goes away, a WriteError."""
    async with _pair() as (stream, peer):
        with faults(FaultKind.WRITE_TIMEOUT):
            assert not stream.write(bytes(8 * HIGH_WATER))
            await stream.drain(0.02)
        peer.close()
        with faults(FaultKind.WRITE_ERROR):
            await _write_on(stream)


async def test_an_idle_stream_knows_when_it_is_stale() -> None:
    """A stream that its peer closed, or that got unrequested bytes, isn't used again, even before the loop has run."""
    async with _pair() as (stream, peer):
        assert not stream.stale()
        peer.send(b"unasked")
        assert stream.stale()
    async with _pair() as (stream, peer):
        peer.close()
        assert stream.stale()


async def test_aborting_wakes_the_reader() -> None:
    """Another task ends the stream; its reader sees the end."""
    async with _pair() as (stream, _):
        reading = asyncio.create_task(stream.read(None))
        await asyncio.sleep(0)
        stream.abort()
        assert await reading == b""


async def test_two_readers_are_an_error() -> None:
    """The second would take bytes of the first."""
    async with _pair() as (stream, peer):
        reading = asyncio.create_task(stream.read(None))
        await asyncio.sleep(0)
        with faults(FaultKind.READ_ERROR):
            await stream.read(None)
        peer.send(b"x")
        assert await reading == b"x"


async def test_relayed_bytes_are_handed_over_in_small_pieces() -> None:
    """Each in the turn of the loop in which it is read, and no more of them than are wanted."""
    total, took = 10 * RELAY_SIZE, []

    def take(data: memoryview) -> bool:
        took.append(len(data))
        return len(took) % 4 != 0

    async with _pair() as (stream, peer):

        async def send() -> None:
            await asyncio.get_running_loop().sock_sendall(peer, bytes(total))
            peer.close()

        sending = asyncio.create_task(send())
        goes_on = True
        while goes_on:
            before = len(took)
            goes_on = await stream.relay(take, 30)
            assert len(took) - before <= 4
            assert not stream._chunks
        await sending
        assert sum(took) == total
        assert max(took) <= RELAY_SIZE


async def test_what_waits_already_is_relayed_first() -> None:
    """Then what comes, in order; the end is told."""
    took = bytearray()
    async with _pair() as (stream, peer):
        peer.send(b"one")
        await until(lambda: stream._held == 3)
        peer.send(b"two")
        peer.close()
        assert await stream.relay(lambda data: bool(took.extend(data) or True), 30) is False
        assert took == b"onetwo"


async def test_a_fast_peer_does_not_keep_a_relay_at_what_waited() -> None:
    """Bytes that arrived before a relay are handed on first, and no more are read meanwhile."""
    total, took = 8 * HIGH_WATER, []
    async with _pair() as (stream, peer):
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, bytes(total)))
        await until(lambda: stream._held > 0)
        waited = len(stream._chunks)

        def take(data: memoryview) -> bool:
            took.append(len(data))
            return sum(took) < total

        assert await stream.relay(take, 30) is True
        await sending
        assert max(took[waited:]) <= RELAY_SIZE


async def test_after_a_relay_the_rest_can_be_read() -> None:
    """Taker and reader share one stream."""
    async with _pair() as (stream, peer):
        peer.send(b"a" * RELAY_SIZE + b"rest")
        assert await stream.relay(lambda data: False, 30) is True
        got = b""
        while len(got) < 4:
            got += await stream.read(30)
        assert got == b"rest"


async def test_a_relay_waits_no_longer_than_it_may() -> None:
    """For a byte; the stream is of use afterwards."""
    async with _pair() as (stream, peer):
        with faults(FaultKind.READ_TIMEOUT):
            await stream.relay(lambda data: True, 0.05)
        peer.send(b"late")
        assert await stream.read(30) == b"late"


async def test_what_a_taker_raises_ends_the_relay() -> None:
    """It reaches who relays, and not the loop's handler of errors."""
    async with _pair() as (stream, peer):
        peer.send(b"x")
        with pytest.raises(ZeroDivisionError):
            await stream.relay(lambda data: bool(1 // 0), 30)


async def test_a_relay_ends_with_its_stream() -> None:
    """Another task aborts it, or the peer breaks it."""
    async with _pair() as (stream, _):
        relaying = asyncio.create_task(stream.relay(lambda data: True, 30))
        await until(lambda: stream._take is not None)
        stream.abort()
        assert await relaying is False
