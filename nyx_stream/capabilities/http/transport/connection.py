"""One HTTP/1.1 connection of the pool: h11 for the protocol, `ByteStream` for the bytes, `Exchange` for the bounds.

Unlike httpcore's connection it enforces limits while bytes arrive, never switches protocols, and can relay a body to a
sink in the same turn of the loop in which it arrives: no task, no queue and no copy in between.
"""

import asyncio
import enum
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from types import AsyncGeneratorType
from typing import cast

import h11

from nyx_stream.capabilities.http.exchange import (
    CHUNKS_AT_ONCE,
    READ_AHEAD,
    Exchange,
    Origin,
    RequestRefused,
    ResponseHead,
)
from nyx_stream.capabilities.http.service import FaultKind, HttpFault, Sink
from nyx_stream.capabilities.http.transport.byte_stream import ByteStream
from nyx_stream.capabilities.network import Dialer

KEEP_ALIVE = 5.0
"""Seconds that an idle connection is kept, as in httpx."""

_MAX_INTERIM = 16
"""1xx responses before the final one; a peer that sends more is stalling."""


class ConnectionState(enum.Enum):
    """What a connection is doing."""

    NEW = enum.auto()
    ACTIVE = enum.auto()
    IDLE = enum.auto()
    CLOSED = enum.auto()


class HttpConnection:
    """A connection to one origin, for one exchange at a time. Made unconnected; the first exchange dials.

    Its methods raise `HttpFault`, `RequestRefused`, `DialRefused`, `LimitExceeded` and `Spent`, and close it then.
    """

    def __init__(self, origin: Origin, dialer: Dialer) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._dialer = dialer
        self._policy = dialer.guard.policy
        self._state = ConnectionState.NEW
        self._stream: ByteStream | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._chunks = 0

    async def send(self, exchange: Exchange) -> ResponseHead:
        """Sends the request of `exchange` and returns the response's head."""
        fresh, self._state = self._state is ConnectionState.NEW, ConnectionState.ACTIVE
        try:
            stream = await self._dial(exchange) if fresh or self._stream is None else self._stream
            try:
                await self._send(stream, exchange)
            except HttpFault as fault:
                # A server may answer and close before it has taken the whole body: its answer counts.
                if fault.kind is not FaultKind.WRITE_ERROR:
                    raise
            return await self._receive_head(stream, exchange)
        except BaseException:
            self.abort()
            raise

    async def _dial(self, exchange: Exchange) -> ByteStream:
        """Look-up, dial and TLS handshake share the connect timeout."""
        scheme, host, port = self.origin
        try:
            async with asyncio.timeout(exchange.wait(exchange.timeouts.connect)):
                sock = await self._dialer.connect(host, port)
                try:
                    context = await self._dialer.network.tls() if scheme == "https" else None
                except BaseException:
                    sock.close()
                    raise
                self._stream = await ByteStream.over(sock, context, host)
        except TimeoutError as error:
            raise HttpFault(FaultKind.CONNECT_TIMEOUT, "timed out") from error
        except OSError as error:
            raise HttpFault(FaultKind.CONNECT_ERROR, str(error)) from error
        self._protocol = _protocol(exchange)
        return self._connected()

    def _connected(self) -> ByteStream:
        # A client that was closed during the dial had nothing to close here.
        if self._stream is None or self._state is not ConnectionState.ACTIVE:
            raise HttpFault(FaultKind.READ_ERROR, "the connection is closed")
        return self._stream

    # Sending.

    async def _send(self, stream: ByteStream, exchange: Exchange) -> None:
        send, body = self._protocol.send, exchange.body
        method, target = exchange.verdict.method, exchange.verdict.target
        try:
            head = send(h11.Request(method=method, target=target, headers=exchange.headers)) or b""
            if isinstance(body, bytes):
                data = b""
                if body:
                    exchange.sent(len(body))
                    data = send(h11.Data(data=body)) or b""
                await self._write(stream, exchange, b"".join((head, data, send(h11.EndOfMessage()) or b"")))
                return
            await self._write(stream, exchange, head)
            async with _closing(body) as chunks:
                async for chunk in chunks:
                    data = _as_bytes(chunk)
                    exchange.sent(len(data))
                    if data:
                        await self._write(stream, exchange, send(h11.Data(data=data)) or b"")
            await self._write(stream, exchange, send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise HttpFault(FaultKind.LOCAL_PROTOCOL_ERROR, str(error)) from error

    @staticmethod
    async def _write(stream: ByteStream, exchange: Exchange, data: bytes) -> None:
        if data:
            exchange.lease.spend("bytes_out", len(data))
            if not stream.write(data):
                await stream.drain(exchange.wait(exchange.timeouts.write))

    # Receiving.

    async def _receive_head(self, stream: ByteStream, exchange: Exchange) -> ResponseHead:
        interim = 0
        while True:
            if not await self._read(stream, exchange):
                raise _broken("Server disconnected without sending a response.")
            while (event := self._next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    headers = event.headers.raw_items()
                    exchange.head_complete(event.status_code, headers)
                    return ResponseHead(event.status_code, b"HTTP/" + event.http_version, bytes(event.reason), headers)
                interim += 1
                if not isinstance(event, h11.InformationalResponse):
                    raise _broken("no response where one was due")
                if interim > _MAX_INTERIM:
                    raise _broken("too many interim responses")
            exchange.head_pending()

    async def _read(self, stream: ByteStream, exchange: Exchange) -> bool:
        data = await stream.read(exchange.wait(exchange.timeouts.read))
        self._feed(data, exchange)
        return bool(data)

    def _feed(self, data: bytes | memoryview, exchange: Exchange) -> None:
        if not data and self._state is ConnectionState.CLOSED:  # this side ended it, not the peer
            raise HttpFault(FaultKind.READ_ERROR, "the connection is closed")
        exchange.arrived(len(data))
        try:
            self._protocol.receive_data(data)  # type: ignore[arg-type]  # it is added to a bytearray
        except h11.RemoteProtocolError as error:
            raise _broken(str(error)) from error

    def _next_event(self) -> object:
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError as error:
            # No request of ours proposes an upgrade, so h11 knows 101 only as an error, and names it in the text.
            if "_SWITCH_UPGRADE" in str(error):
                raise RequestRefused("the server switches protocols; no rule grants an upgrade") from error
            raise _broken(str(error)) from error

    async def receive(self, exchange: Exchange, size: float) -> tuple[list[bytes], bool]:
        """Receives `size` bytes of the body or a little more, still encoded.

        Returns them in pieces, and whether the body is complete.
        """
        stream = self._connected()
        pieces: list[bytes] = []
        try:
            while size > 0:
                if exchange.deadline <= time.monotonic():  # although the bytes may have been here for long
                    raise HttpFault(FaultKind.READ_TIMEOUT, "timed out")
                event = self._next_event()
                if isinstance(event, h11.Data):
                    exchange.body_received(len(event.data))
                    pieces.append(bytes(event.data))
                    size -= len(event.data)
                    self._chunks += 1
                    if self._chunks % CHUNKS_AT_ONCE == 0:
                        await asyncio.sleep(0)  # nothing else may ever make its reader wait
                elif event is h11.NEED_DATA:
                    await self._read(stream, exchange)
                else:
                    return pieces, True
        except BaseException:
            self.abort()
            raise
        return pieces, False

    async def relay(self, exchange: Exchange, sink: Sink) -> None:
        """Passes the rest of the body on, still encoded. Raises also what `sink` raises."""
        stream = self._connected()
        relay = _Relay(self, exchange, sink)
        try:
            await relay.run(stream)
        except BaseException:
            self.abort()
            raise
        if relay.counted and self._protocol.our_state is h11.DONE and not relay.surplus:
            # h11 still waits for what bypassed it. It would keep the connection: the next response is a new exchange.
            self._protocol = _protocol(exchange)

    # Between exchanges.

    def release(self) -> bool:
        """Ends the exchange: returns True if the connection can serve another one, and closes it otherwise."""
        if self._state is not ConnectionState.ACTIVE:
            return False
        ours, theirs = self._protocol.our_state, self._protocol.their_state
        # Bytes beyond the response would be taken for the answer to the next request.
        if ours is theirs and ours in (h11.DONE, h11.IDLE) and self._protocol.trailing_data == (b"", False):
            if ours is h11.DONE:
                self._protocol.start_next_cycle()
            self._state = ConnectionState.IDLE
            self.idle_since = time.monotonic()
            return True
        self.abort()
        return False

    def stale(self) -> bool:
        """Tells whether an idle connection can't be used: too old, ended by its peer, or allowed by an old policy."""
        return (
            self._state is not ConnectionState.IDLE
            or self._policy is not self._dialer.guard.policy
            or time.monotonic() - self.idle_since > KEEP_ALIVE
            or self._stream is None
            or self._stream.stale()
        )

    def abort(self) -> None:
        """Closes the connection at once, without waiting; a reader wakes with an error."""
        self._state = ConnectionState.CLOSED
        if self._stream is not None:
            self._stream.abort()

    async def aclose(self) -> None:
        """Closes the connection and waits until its descriptor is closed."""
        self.abort()
        if self._stream is not None:
            await self._stream.aclose()


class _Relay:
    """The rest of one body. Bytes of a counted body bypass h11, which would copy each of them three times."""

    def __init__(self, connection: HttpConnection, exchange: Exchange, sink: Sink) -> None:
        self._connection = connection
        self._exchange = exchange
        self._sink = sink
        self._over = False
        self.counted = False
        """Whether the end of the body bypassed h11."""
        self.surplus = False
        """Whether more arrived than the body."""

    async def run(self, stream: ByteStream) -> None:
        """Returns once the sink has the whole body."""
        while not self._over:
            await self._sink.drain()
            if not self.counted and not self._pass_on():
                await asyncio.sleep(0)
                continue
            self.counted = self._exchange.left > 0
            take = self._take_counted if self.counted else self._take_framed
            if not await stream.relay(take, self._exchange.timeouts.read) and not self._over:
                self._end()
        await stream.settle()
        await self._sink.drain()

    def _pass_on(self) -> bool:
        """Passes on what h11 has, or some of it; returns whether it needs more."""
        passed = 0
        while isinstance(event := self._connection._next_event(), h11.Data):
            self._exchange.body_received(len(event.data))
            passed += 1
            if not self._sink.offer(event.data) or passed == CHUNKS_AT_ONCE:
                return False
        self._over = event is not h11.NEED_DATA
        return not self._over

    def _take_framed(self, data: memoryview) -> bool:
        self._connection._feed(data, self._exchange)
        return self._pass_on()

    def _take_counted(self, data: memoryview) -> bool:
        size, left = len(data), self._exchange.left
        self._exchange.arrived(size)
        if size >= left:
            self._over, self.surplus = True, size > left
            data, size = data[:left], left
        self._exchange.body_received(size)
        return self._sink.offer(data) and not self._over

    def _end(self) -> None:
        if self.counted:
            got, left = self._exchange.received, self._exchange.left
            cut = "peer closed connection without sending complete message body"  # h11's words
            raise _broken(f"{cut} (received {got} bytes, expected {got + left})")
        self._connection._feed(b"", self._exchange)


def _broken(message: str) -> HttpFault:
    return HttpFault(FaultKind.REMOTE_PROTOCOL_ERROR, message)


def _protocol(exchange: Exchange) -> h11.Connection:
    # h11 raises a plain protocol error at its own bound; ours come first and name the limit.
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=exchange.limits.header_bytes + READ_AHEAD)


def _closing(chunks: AsyncIterable[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    iterator = aiter(chunks)
    if isinstance(iterator, AsyncGeneratorType):
        return cast("AbstractAsyncContextManager[AsyncIterator[bytes]]", aclosing(iterator))
    return nullcontext(iterator)


def _as_bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        # bytes(5) would be five zero bytes.
        raise TypeError(f"a request body must yield bytes, not {type(chunk).__name__}")
    return bytes(chunk)
