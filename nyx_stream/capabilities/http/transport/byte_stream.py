"""One TCP or TLS byte stream on asyncio.

The selector stays registered for the life of the stream, so that a request costs one `send` and one `recv`. Reading
pauses while `HIGH_WATER` bytes wait for a slow reader.
"""

import asyncio
import select
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from nyx_stream.capabilities.http.service import FaultKind, HttpFault

HIGH_WATER = 512 * 1024
"""Bytes kept for a slow reader; the socket isn't read while that many wait."""

_SHUTDOWN = 1.0
"""Seconds that a TLS peer may take to answer our close_notify before the socket is closed without the answer."""

READ_SIZE = 120 * 1024
"""Bytes read from the socket at once. Copies of this size come from malloc's heap, larger ones as fresh pages."""
RELAY_SIZE = 16 * 1024
"""Bytes read at once during a relay, where all work on them is done in one turn of the loop. From TLS all that it has
decrypted is taken, some 512 KiB at most."""
_MAX_RECORD = 16 * 1024
"""Bytes of the longest TLS record."""


class ByteStream(asyncio.BufferedProtocol):
    """A connected stream, read by one task and written by one task at a time."""

    __slots__ = (
        "_buffer", "_chunks", "_closed", "_ended", "_error", "_held", "_loop", "_poll", "_reading", "_relayed",
        "_take", "_transport", "_wake_reader", "_wake_writer", "_writing",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._reading = True
        self._writing = True
        self._ended = False
        self._error: Exception | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = loop.create_future()
        self._poll: Callable[[int], list[Any]] | None = None
        self._take: Callable[[memoryview], bool] | None = None
        self._relayed = 0.0

    @classmethod
    async def over(cls, sock: socket.socket, context: ssl.SSLContext | None, name: str) -> "ByteStream":
        """Takes over a connected, non-blocking socket; with a context, speaks TLS and verifies `name`.

        Raises OSError, which includes `ssl.SSLError`. The socket is closed in every case but success.
        """
        loop = asyncio.get_running_loop()
        stream = cls(loop)
        try:
            await loop.create_connection(
                lambda: stream,
                sock=sock,
                ssl=context,
                server_hostname=name if context is not None else None,
                ssl_shutdown_timeout=_SHUTDOWN if context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return stream

    async def read(self, timeout: float | None) -> bytes:
        """Returns the next bytes that arrived, or `b""` at the end of the stream.

        Raises `HttpFault`: READ_TIMEOUT after `timeout` seconds without a byte, READ_ERROR if the connection broke.
        """
        if not self._chunks:
            if not self._ended:
                if not self._reading:
                    self._resume()
                arrival = self._expect()
                try:
                    await self._wait(arrival, timeout, FaultKind.READ_TIMEOUT)
                finally:
                    self._wake_reader = None
            if not self._chunks:
                self._check()
                return b""
        data = self._chunks.popleft()
        self._held -= len(data)
        if not self._reading and self._held < HIGH_WATER:
            self._resume()
        return data

    async def relay(self, take: Callable[[memoryview], bool], timeout: float | None) -> bool:
        """Hands arriving bytes to `take` in the turn of the loop in which they arrive, until it returns False.

        `take` must be done with the bytes when it returns. Returns whether more may come: not after the end of the
        stream. Raises what `take` raises, and `HttpFault`: READ_ERROR if the connection broke, READ_TIMEOUT after
        `timeout` seconds without a byte.
        """
        if self._chunks:  # they arrived before the relay; nothing more is read until they are gone
            self._pause()
        while self._chunks:
            data = self._chunks.popleft()
            self._held -= len(data)
            if not take(memoryview(data)):
                return True
            await asyncio.sleep(0)
        if not self._ended:
            over = self._expect()
            self._take, self._relayed = take, self._loop.time()
            self._resume()
            try:
                await self._relaying(over, timeout)
            finally:
                self._take = self._wake_reader = None
        if self._ended and not self._chunks:
            self._check()
            return False
        return True

    async def settle(self) -> None:
        """Reads on after a relay that has all it wants: unrequested bytes make the stream stale."""
        if not self._reading:
            self._resume()
            await asyncio.sleep(0)  # TLS hands out now what it has already read from the kernel

    def write(self, data: bytes) -> bool:
        """Sends `data`; returns whether the caller may go on without `drain`. Raises `HttpFault`: WRITE_ERROR."""
        if self._ended or self._transport is None:
            raise HttpFault(FaultKind.WRITE_ERROR, "the connection is closed")
        self._transport.write(data)
        return self._writing

    async def drain(self, timeout: float | None) -> None:
        """Waits until the peer has taken what was written.

        Raises `HttpFault`: WRITE_TIMEOUT after `timeout` seconds, WRITE_ERROR if the connection broke.
        """
        if not self._writing:
            self._wake_writer = self._loop.create_future()
            try:
                await self._wait(self._wake_writer, timeout, FaultKind.WRITE_TIMEOUT)
            finally:
                self._wake_writer = None
        if self._error is not None:
            raise HttpFault(FaultKind.WRITE_ERROR, str(self._error)) from self._error

    def stale(self) -> bool:
        """Tells whether an idle stream has ended, or has received bytes that no request asked for."""
        if self._ended or self._chunks or self._poll is None:
            return True
        # The loop may not have run since the peer closed: ask the kernel.
        return bool(self._poll(0))

    def abort(self) -> None:
        """Ends the stream at once; readers and writers wake."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        """Ends the stream and waits until its descriptor is closed."""
        self.abort()
        await asyncio.shield(self._closed)

    # Waiting.

    async def _wait(self, wake: asyncio.Future[None], timeout: float | None, late: FaultKind) -> None:
        if timeout is None:
            await wake
            return
        timer = self._loop.call_later(timeout, _expire, wake, late)
        try:
            await wake
        finally:
            timer.cancel()

    async def _relaying(self, over: asyncio.Future[None], timeout: float | None) -> None:
        if timeout is None:
            await over
            return
        timer: asyncio.Handle

        def check_timeout() -> None:
            nonlocal timer
            due = self._relayed + timeout
            if due <= self._loop.time():
                _expire(over, FaultKind.READ_TIMEOUT)
            else:
                timer = self._loop.call_at(due, check_timeout)

        timer = self._loop.call_soon(check_timeout)
        try:
            await over
        finally:
            timer.cancel()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll = _poll_of(transport.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> memoryview:
        size = READ_SIZE if self._take is None else RELAY_SIZE
        if sizehint > 0:
            # TLS says how much it has read already. asyncio loses the rest of that when it reads the end.
            size = max(size, sizehint + _MAX_RECORD)
            if size > len(self._buffer):
                self._buffer = memoryview(bytearray(size))
        return self._buffer[:size]

    def buffer_updated(self, nbytes: int) -> None:
        if self._take is not None:
            self._hand_over(self._take, self._buffer[:nbytes])
            return
        self._chunks.append(bytes(self._buffer[:nbytes]))
        self._held += nbytes
        if self._held >= HIGH_WATER:
            self._pause()
        waiter = self._wake_reader
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._wake_reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        _wake(self._wake_reader)
        _wake(self._wake_writer)
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        _wake(self._wake_writer)

    # Used by both sides.

    def _expect(self) -> asyncio.Future[None]:
        if self._wake_reader is not None:
            raise HttpFault(FaultKind.READ_ERROR, "two tasks read one response")
        self._wake_reader = self._loop.create_future()
        return self._wake_reader

    def _check(self) -> None:
        if self._error is not None:
            raise HttpFault(FaultKind.READ_ERROR, str(self._error)) from self._error

    def _hand_over(self, take: Callable[[memoryview], bool], data: memoryview) -> None:
        self._relayed = self._loop.time()
        waiter = self._wake_reader
        try:
            if take(data):
                return
        except Exception as error:
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
        self._take = None
        self._pause()
        _wake(waiter)

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _expire(waiter: asyncio.Future[None], late: FaultKind) -> None:
    if not waiter.done():
        waiter.set_exception(HttpFault(late, "timed out"))


def _poll_of(sock: socket.socket) -> Callable[[int], list[Any]]:
    """Returns a call that lists what the kernel has to read on `sock`, without reading it."""
    number = sock.fileno()
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return lambda seconds: select.select([number], [], [], seconds)[0]
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return poll.poll
