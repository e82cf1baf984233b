"""One HTTP/1.1 connection of the pool: h11 for the protocol, `ByteStream` for the bytes, `Exchange` for the bounds.

Like httpcore2's own connection, but that limits are kept while bytes arrive and not after, and that a switch of
protocols has no way through. Errors are httpcore2's. Knows nothing of the library above or of plugins.
"""

import asyncio
import enum
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from types import AsyncGeneratorType

import h11
import httpcore2

from nyx_stream.capabilities.http.errors import RequestRefused, refusal
from nyx_stream.capabilities.http.exchange import CHUNKS_AT_ONCE, READ_AHEAD, Exchange, Head, Origin, Sink
from nyx_stream.capabilities.http.transport.byte_stream import ByteStream, open_stream
from nyx_stream.capabilities.http.transport.relay import Relay
from nyx_stream.capabilities.network import Dialer

KEEP_ALIVE = 5.0
"""Seconds an idle connection is kept, as in httpx."""

_MOST_INTERIM = 16
"""1xx responses before the real one; a peer that sends more is stalling."""


class _State(enum.Enum):
    NEW = enum.auto()
    ACTIVE = enum.auto()
    IDLE = enum.auto()
    CLOSED = enum.auto()


class HttpConnection:
    """A connection to one origin, for one exchange at a time. Made unconnected; the first exchange dials."""

    def __init__(self, origin: Origin, dialler: Dialer) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._dialler = dialler
        self._epoch = dialler.epoch()
        self._state = _State.NEW
        self._wire: ByteStream | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._chunks = 0

    async def send(self, exchange: Exchange) -> None:
        """Sends the request of `exchange` and reads the response's head into it.

        Raises httpcore2 errors, `RequestRefused`, `Exceeded` and `Spent`; the connection is then closed.
        """
        fresh, self._state = self._state is _State.NEW, _State.ACTIVE
        try:
            wire = await self._dial(exchange) if fresh else self._connected()
            # A server may answer and close before it has taken the whole body: its answer counts.
            with suppress(httpcore2.WriteError):
                await self._send(wire, exchange)
            exchange.head_complete(await self._receive_head(wire, exchange))
        except BaseException:
            self.abort()
            raise

    async def _dial(self, exchange: Exchange) -> ByteStream:
        scheme, host, port = self.origin
        self._wire = await open_stream(self._dialler, scheme, host, port, exchange.wait(exchange.timeouts.connect))
        # The client may have been closed meanwhile, when there was nothing here to close.
        self._connected()
        self._protocol = _protocol(exchange)
        return self._wire

    def _connected(self) -> ByteStream:
        if self._wire is None or self._state is not _State.ACTIVE:
            raise httpcore2.ReadError("the connection is closed")
        return self._wire

    # Sending.

    async def _send(self, wire: ByteStream, exchange: Exchange) -> None:
        body, message = exchange.body, exchange.message
        try:
            head = self._protocol.send(
                h11.Request(method=message.method, target=message.target, headers=message.headers)
            )
            if isinstance(body, bytes):
                exchange.sent(len(body))
                await self._write(wire, exchange, head, self._framed(body), self._protocol.send(h11.EndOfMessage()))
                return
            await self._write(wire, exchange, head)
            async with _closing(body) as chunks:
                async for chunk in chunks:
                    data = _as_bytes(chunk)
                    exchange.sent(len(data))
                    await self._write(wire, exchange, self._framed(data))
            await self._write(wire, exchange, self._protocol.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpcore2.LocalProtocolError(str(error)) from error

    def _framed(self, data: bytes) -> bytes | None:
        return self._protocol.send(h11.Data(data=data)) if data else b""

    @staticmethod
    async def _write(wire: ByteStream, exchange: Exchange, *parts: bytes | None) -> None:
        data = b"".join([part for part in parts if part])
        if data:
            exchange.leaves(len(data))
            await wire.write(data, exchange.wait(exchange.timeouts.write))

    # Receiving.

    async def _receive_head(self, wire: ByteStream, exchange: Exchange) -> Head:
        interim = 0
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                exchange.head_pending()
                if not await self._read(wire, exchange):
                    raise httpcore2.RemoteProtocolError("Server disconnected without sending a response.")
            elif isinstance(event, h11.Response):
                _check_framing(event)
                return Head(
                    event.status_code, b"HTTP/" + event.http_version, bytes(event.reason), event.headers.raw_items()
                )
            elif isinstance(event, h11.InformationalResponse):
                interim += 1
                if interim > _MOST_INTERIM:
                    raise httpcore2.RemoteProtocolError("too many interim responses")
            else:
                raise httpcore2.RemoteProtocolError("no response where one was due")

    async def _read(self, wire: ByteStream, exchange: Exchange) -> bool:
        data = await wire.read(exchange.wait(exchange.timeouts.read))
        self._feed(data, exchange)
        return bool(data)

    def _feed(self, data: bytes | memoryview, exchange: Exchange) -> None:
        if not data and self._state is _State.CLOSED:  # it is our end, and not the peer's
            raise httpcore2.ReadError("the connection is closed")
        exchange.arrived(len(data))
        try:
            self._protocol.receive_data(data)  # type: ignore[arg-type]  # it is added to a bytearray
        except h11.RemoteProtocolError as error:
            raise httpcore2.RemoteProtocolError(str(error)) from error

    def _next_event(self) -> object:
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError as error:
            # No request of ours proposes an upgrade, so h11 knows 101 only as an error, and names it in the text.
            if "_SWITCH_UPGRADE" in str(error):
                raise RequestRefused(refusal("the server switches protocols; no rule grants an upgrade")) from error
            raise httpcore2.RemoteProtocolError(str(error)) from error

    async def next_chunk(self, exchange: Exchange) -> bytes | None:
        """The next bytes of the body, still encoded; `None` once it is complete."""
        wire = self._connected()
        try:
            while True:
                if not exchange.wait(None):  # though the bytes may have been here for long
                    raise httpcore2.ReadTimeout("timed out")
                event = self._next_event()
                if isinstance(event, h11.Data):
                    exchange.received(len(event.data))
                    self._chunks += 1
                    if self._chunks % CHUNKS_AT_ONCE == 0:
                        await asyncio.sleep(0)  # nothing else may ever make its reader wait
                    return bytes(event.data)
                if event is not h11.NEED_DATA:
                    return None
                await self._read(wire, exchange)
        except BaseException:
            self.abort()
            raise

    async def relay(self, exchange: Exchange, sink: Sink) -> None:
        """Passes what is left of the body on, still encoded. Raises as `next_chunk`, and what `sink` raises."""
        wire = self._connected()
        relay = Relay(exchange, sink, lambda data: self._feed(data, exchange), self._next_event)
        try:
            await relay.run(wire)
        except BaseException:
            self.abort()
            raise
        if relay.counted and self._protocol.our_state is h11.DONE and not relay.surplus:
            # h11 still waits for what went past it. It would let the connection live: what comes is a new exchange.
            self._protocol = _protocol(exchange)

    def release(self) -> bool:
        """Ends the exchange: returns True if the connection can serve another one, and closes it otherwise."""
        if self._state is not _State.ACTIVE:
            return False
        ours, theirs = self._protocol.our_state, self._protocol.their_state
        # Bytes beyond the response would be taken for the answer to the next request.
        if ours is theirs and ours in (h11.DONE, h11.IDLE) and self._protocol.trailing_data == (b"", False):
            if ours is h11.DONE:
                self._protocol.start_next_cycle()
            self._state = _State.IDLE
            self.idle_since = time.monotonic()
            return True
        self.abort()
        return False

    def stale(self) -> bool:
        """Whether an idle connection is of no more use: too old, ended by its peer, or allowed by a policy of old."""
        return (
            self._state is not _State.IDLE
            or self._epoch is not self._dialler.epoch()
            or time.monotonic() - self.idle_since > KEEP_ALIVE
            or self._wire is None
            or self._wire.stale()
        )

    def abort(self) -> None:
        """Closes the connection at once, without waiting; a reader wakes with an error."""
        self._state = _State.CLOSED
        if self._wire is not None:
            self._wire.abort()

    async def aclose(self) -> None:
        """Closes the connection and waits until its descriptor is gone."""
        self.abort()
        if self._wire is not None:
            await self._wire.aclose()


def _protocol(exchange: Exchange) -> h11.Connection:
    # h11 raises a plain protocol error at its own bound; ours come first and name the limit.
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=exchange.bounds.header_bytes + READ_AHEAD)


def _closing(chunks: AsyncIterable[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    iterator = aiter(chunks)
    return aclosing(iterator) if isinstance(iterator, AsyncGeneratorType) else nullcontext(iterator)


def _check_framing(response: h11.Response) -> None:
    # Two readers that believe another one of the two disagree on where the response ends (RFC 9112, section 6.3).
    names = {name for name, _ in response.headers}
    if b"transfer-encoding" in names and b"content-length" in names:
        raise httpcore2.RemoteProtocolError("both Content-Length and Transfer-Encoding")


def _as_bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        # bytes(5) would be five zero bytes.
        raise TypeError(f"a request body must yield bytes, not {type(chunk).__name__}")
    return bytes(chunk)
