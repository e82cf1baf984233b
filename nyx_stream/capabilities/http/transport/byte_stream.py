"""One TCP or TLS byte stream on asyncio. Knows nothing of HTTP, of policies or of plugins.

The selector stays registered for the life of the stream, so that a request costs one `send` and one `recv`; a reader
that falls behind is held back at `HIGH_WATER` bytes. Errors and timeouts are httpcore2's.
"""

import asyncio
import select
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

import httpcore2

from nyx_stream.capabilities.network import Dialer

HIGH_WATER = 512 * 1024
"""Bytes kept for a reader that does not come; then the socket is no longer read."""

_SHUTDOWN = 1.0
"""Seconds a TLS peer may take to answer our close_notify before the socket is closed without it."""


READ_SIZE = 120 * 1024
"""Bytes taken from the socket at once: copies of this size come from malloc's heap, larger ones as fresh pages."""
RELAY_SIZE = 16 * 1024
"""Bytes taken at once while they are relayed: all that is done with them is done in one turn of the loop. From TLS all
that it has is taken, some 512 KiB at most."""
_RECORD = 16 * 1024
"""Bytes that a record of TLS has at most."""


class ByteStream(asyncio.BufferedProtocol):
    """A connected stream, read by one task and written by one task at a time."""

    __slots__ = (
        "_buffer", "_chunks", "_closed", "_ended", "_error", "_held", "_loop", "_probe", "_reading", "_relayed",
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
        self._probe: Callable[[], bool] | None = None
        self._take: Callable[[memoryview], bool] | None = None
        self._relayed = 0.0

    @classmethod
    async def over(cls, sock: socket.socket, context: ssl.SSLContext | None, name: str) -> "ByteStream":
        """Takes over a connected, non-blocking socket; with a context, speaks TLS and verifies `name`.

        Raises OSError, which includes `ssl.SSLError`. The socket is closed in every case but success.
        """
        loop = asyncio.get_running_loop()
        wire = cls(loop)
        try:
            await loop.create_connection(
                lambda: wire,
                sock=sock,
                ssl=context,
                server_hostname=name if context is not None else None,
                ssl_shutdown_timeout=_SHUTDOWN if context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return wire

    async def read(self, timeout: float | None) -> bytes:
        """The next bytes that arrived, or `b""` at the end of the stream.

        Raises `ReadTimeout` after `timeout` seconds without a byte, `ReadError` if the connection broke.
        """
        if not self._chunks:
            if not self._ended:
                self._resume()
                arrival = self._expect()
                try:
                    await self._wait(arrival, timeout, httpcore2.ReadTimeout)
                finally:
                    self._wake_reader = None
            if not self._chunks:
                self._check()
                return b""
        data = self._next_chunk()
        if self._held < HIGH_WATER:
            self._resume()
        return data

    async def relay(self, take: Callable[[memoryview], bool], timeout: float | None) -> bool:
        """Hands the bytes that arrive to `take` in the very turn of the loop in which they do, until it says no.

        `take` is done with them when it returns, and says whether it wants more. Returns whether more may come: not
        after the end of the stream. Raises what `take` raises, `ReadError` if the connection broke, `ReadTimeout`
        after `timeout` seconds without a byte.
        """
        if self._chunks:  # they came while nobody was asking; no more of them do until they are gone
            self._pause()
        while self._chunks:
            if not take(memoryview(self._next_chunk())):
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
        """Reads on after a relay that has all it wants: bytes that nobody asked for make the stream stale."""
        if not self._reading:
            self._resume()
            await asyncio.sleep(0)  # TLS has read from the kernel already what it hands out now

    async def _relaying(self, over: asyncio.Future[None], timeout: float | None) -> None:
        if timeout is None:
            await over
            return
        timer: asyncio.Handle

        def look() -> None:
            nonlocal timer
            due = self._relayed + timeout
            if due <= self._loop.time():
                _expire(over, httpcore2.ReadTimeout)
            else:
                timer = self._loop.call_at(due, look)

        timer = self._loop.call_soon(look)
        try:
            await over
        finally:
            timer.cancel()

    async def write(self, data: bytes, timeout: float | None) -> None:
        """Sends `data`, waiting while the peer does not take it.

        Raises `WriteTimeout` after `timeout` seconds of waiting, `WriteError` if the connection broke.
        """
        if self._ended or self._transport is None:
            raise httpcore2.WriteError("the connection is closed")
        self._transport.write(data)
        if self._writing:
            return
        self._wake_writer = self._loop.create_future()
        try:
            await self._wait(self._wake_writer, timeout, httpcore2.WriteTimeout)
        finally:
            self._wake_writer = None
        if self._error is not None:
            raise httpcore2.WriteError(str(self._error)) from self._error

    def stale(self) -> bool:
        """Whether an idle stream has ended, or has bytes nobody asked for."""
        if self._ended or self._chunks or self._probe is None:
            return True
        # The loop may not have run since the peer closed: ask the kernel.
        return self._probe()

    def abort(self) -> None:
        """Ends the stream at once; readers and writers wake."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        """Ends the stream and waits until its descriptor is closed."""
        self.abort()
        await asyncio.shield(self._closed)

    async def _wait(self, wake: asyncio.Future[None], timeout: float | None, late: type[Exception]) -> None:
        if timeout is None:
            await wake
            return
        timer = self._loop.call_later(timeout, _expire, wake, late)
        try:
            await wake
        finally:
            timer.cancel()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._probe = _probe_of(transport.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> memoryview:
        size = READ_SIZE if self._take is None else RELAY_SIZE
        if sizehint > 0:
            # TLS says how much it has read already. asyncio loses what it still has of that when it reads the end.
            size = max(size, sizehint + _RECORD)
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
        _wake(self._wake_reader)

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

    # What both do.

    def _expect(self) -> asyncio.Future[None]:
        if self._wake_reader is not None:
            raise httpcore2.ReadError("two tasks read one response")
        self._wake_reader = self._loop.create_future()
        return self._wake_reader

    def _next_chunk(self) -> bytes:
        data = self._chunks.popleft()
        self._held -= len(data)
        return data

    def _check(self) -> None:
        if self._error is not None:
            raise httpcore2.ReadError(str(self._error)) from self._error

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


def _expire(waiter: asyncio.Future[None], late: type[Exception]) -> None:
    if not waiter.done():
        waiter.set_exception(late("timed out"))


def _probe_of(sock: socket.socket) -> Callable[[], bool]:
    """A call that says whether the kernel has something to read on `sock`, without reading it."""
    number = sock.fileno()
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return lambda: bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: bool(poll.poll(0))


async def open_stream(dialer: Dialer, scheme: str, host: str, port: int, timeout: float | None) -> ByteStream:
    """Returns a stream to an origin, with TLS for https. Look-up, connection and handshake share `timeout` seconds.

    Raises `DialRefused`, `httpcore2.ConnectTimeout` or `httpcore2.ConnectError`.
    """
    try:
        async with asyncio.timeout(timeout):
            sock = await dialer.connect(host, port)
            try:
                context = await dialer.tls() if scheme in ("https", "wss") else None
            except BaseException:
                sock.close()
                raise
            return await ByteStream.over(sock, context, host)
    except TimeoutError as error:
        raise httpcore2.ConnectTimeout("timed out") from error
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
