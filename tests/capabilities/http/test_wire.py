"""The byte stream below HTTP: it holds a reader's data, holds back a fast peer, and ends when told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore2
import pytest

from nyx_stream.capabilities.http.wire import HIGH_WATER, Wire
from tests.capabilities.http.loopback import until


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    wire = await Wire.over(ours, None, "")
    try:
        yield wire, theirs
    finally:
        theirs.close()
        await wire.aclose()


async def _write_on(wire: Wire) -> None:
    while True:
        await wire.write(bytes(HIGH_WATER), 30)


async def test_bytes_arrive_in_order_and_then_the_end() -> None:
    """What was sent before the end is read before it."""
    async with _pair() as (wire, peer):
        peer.send(b"one")
        assert await wire.read(30) == b"one"
        peer.send(b"two")
        peer.close()
        assert await wire.read(30) == b"two"
        assert await wire.read(30) == b""


async def test_a_reader_that_does_not_come_holds_the_peer_back() -> None:
    """No more than the high-water mark and one reading is kept; all of it is read in the end."""
    total = 8 * HIGH_WATER
    async with _pair() as (wire, peer):
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(peer, bytes(total)))
        await until(lambda: not wire._reading)
        assert wire._held < 2 * HIGH_WATER
        assert not sending.done()
        got = 0
        while got < total:
            got += len(await wire.read(30))
        await sending
        assert got == total


async def test_a_writer_waits_for_a_slow_peer() -> None:
    """A peer that takes nothing is a WriteTimeout; one that goes away, a WriteError."""
    async with _pair() as (wire, peer):
        with pytest.raises(httpcore2.WriteTimeout):
            await wire.write(bytes(8 * HIGH_WATER), 0.02)
        peer.close()
        with pytest.raises(httpcore2.WriteError):
            await _write_on(wire)


async def test_an_idle_wire_knows_when_it_is_stale() -> None:
    """Closed by the peer, or with bytes that nobody asked for: not to be used again, even before the loop has run."""
    async with _pair() as (wire, peer):
        assert not wire.stale()
        peer.send(b"unasked")
        assert wire.stale()
    async with _pair() as (wire, peer):
        peer.close()
        assert wire.stale()


async def test_aborting_wakes_the_reader() -> None:
    """Another task ends the stream; its reader sees the end."""
    async with _pair() as (wire, _):
        reading = asyncio.create_task(wire.read(None))
        await asyncio.sleep(0)
        wire.abort()
        assert await reading == b""


async def test_two_readers_are_an_error() -> None:
    """The second would take bytes of the first."""
    async with _pair() as (wire, peer):
        reading = asyncio.create_task(wire.read(None))
        await asyncio.sleep(0)
        with pytest.raises(httpcore2.ReadError):
            await wire.read(None)
        peer.send(b"x")
        assert await reading == b"x"
