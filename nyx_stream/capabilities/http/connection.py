"""One HTTP/1.1 connection of the pool: h11 for the protocol, `Wire` for the bytes, `Exchange` for the bounds.

Takes the place of httpcore2's own connection, so that limits are kept while bytes arrive and not after, and a switch of
protocols has no way through. Knows nothing of the library above or of plugins.
"""

import enum
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from types import AsyncGeneratorType

import h11
import httpcore2

from nyx_stream.capabilities.http.dialling import Dialler
from nyx_stream.capabilities.http.exchange import READ_AHEAD, Exchange, Head
from nyx_stream.capabilities.http.verdicts import Refused, refusal
from nyx_stream.capabilities.http.wire import Wire

KEEP_ALIVE = 5.0
"""Seconds an idle connection is kept, as in httpx."""

_MOST_INTERIM = 16
"""1xx responses before the real one; a peer that sends more is stalling."""


class _State(enum.Enum):
    NEW = enum.auto()
    ACTIVE = enum.auto()
    IDLE = enum.auto()
    CLOSED = enum.auto()


class Connection(httpcore2.AsyncConnectionInterface):
    """A connection to one origin, for one exchange at a time."""

    def __init__(self, origin: httpcore2.Origin, dialler: Dialler) -> None:
        self._origin = origin
        self._dialler = dialler
        self._epoch = dialler.epoch()
        self._state = _State.NEW
        self._wire: Wire | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._expires = 0.0

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Sends the request of an `Exchange` and reads the response's head into it; the response carries the body.

        Raises httpcore2 errors, `Refused` and `Exceeded`; the connection is then closed.
        """
        exchange: Exchange = request.extensions["exchange"]
        if self._state not in (_State.NEW, _State.IDLE):
            raise httpcore2.ConnectionNotAvailable
        fresh, self._state = self._state is _State.NEW, _State.ACTIVE
        try:
            wire = await self._dial(exchange) if fresh else self._connected()
            # A server may answer and close before it has taken the whole body: its answer counts.
            with suppress(httpcore2.WriteError):
                await self._send(wire, request, exchange)
            exchange.head_complete(await self._receive_head(wire, exchange))
        except BaseException:
            self.abort()
            raise
        body = Body(self, exchange)
        exchange.chunks = body
        return httpcore2.Response(200, content=body)

    async def _dial(self, exchange: Exchange) -> Wire:
        scheme, host = self._origin.scheme.decode("ascii"), self._origin.host.decode("ascii")
        limit = exchange.wait(exchange.timeouts.connect)
        self._wire = await self._dialler.open(scheme, host, self._origin.port, limit)
        # h11 raises a plain protocol error at its own bound; ours come first and name the limit.
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=exchange.bounds.header_bytes + READ_AHEAD)
        return self._wire

    def _connected(self) -> Wire:
        if self._wire is None:
            raise httpcore2.ConnectionNotAvailable
        return self._wire

    # Sending.

    async def _send(self, wire: Wire, request: httpcore2.Request, exchange: Exchange) -> None:
        body = exchange.body
        try:
            head = self._protocol.send(
                h11.Request(method=request.method, target=request.url.target, headers=request.headers)
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
    async def _write(wire: Wire, exchange: Exchange, *parts: bytes | None) -> None:
        data = b"".join([part for part in parts if part])
        if data:
            await wire.write(data, exchange.wait(exchange.timeouts.write))

    # Receiving.

    async def _receive_head(self, wire: Wire, exchange: Exchange) -> Head:
        interim = 0
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                exchange.head_pending()
                if not await self._read(wire, exchange):
                    raise httpcore2.RemoteProtocolError("Server disconnected without sending a response.")
            elif isinstance(event, h11.Response):
                return Head(
                    event.status_code, b"HTTP/" + event.http_version, bytes(event.reason), event.headers.raw_items()
                )
            elif isinstance(event, h11.InformationalResponse):
                interim += 1
                if interim > _MOST_INTERIM:
                    raise httpcore2.RemoteProtocolError("too many interim responses")
            else:
                raise httpcore2.RemoteProtocolError("no response where one was due")

    async def _read(self, wire: Wire, exchange: Exchange) -> bool:
        data = await wire.read(exchange.wait(exchange.timeouts.read))
        exchange.arrived(len(data))
        try:
            self._protocol.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise httpcore2.RemoteProtocolError(str(error)) from error
        return bool(data)

    def _next_event(self) -> object:
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError as error:
            # No request of ours proposes an upgrade, so h11 knows 101 only as an error, and names it in the text.
            if "_SWITCH_UPGRADE" in str(error):
                raise Refused(refusal("the server switches protocols; no rule grants an upgrade")) from error
            raise httpcore2.RemoteProtocolError(str(error)) from error

    async def next_chunk(self, exchange: Exchange) -> bytes | None:
        """The next bytes of the body, still encoded; `None` once it is complete."""
        wire = self._connected()
        try:
            while True:
                event = self._next_event()
                if isinstance(event, h11.Data):
                    exchange.received(len(event.data))
                    return bytes(event.data)
                if event is not h11.NEED_DATA:
                    return None
                await self._read(wire, exchange)
        except BaseException:
            self.abort()
            raise

    def release(self) -> None:
        """Ends the exchange: the connection is free again if both sides are done, and closed otherwise."""
        if self._state is not _State.ACTIVE:
            return
        done = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        # Bytes beyond the response would be taken for the answer to the next request.
        if done and self._protocol.trailing_data == (b"", False):
            self._protocol.start_next_cycle()
            self._state = _State.IDLE
            self._expires = time.monotonic() + KEEP_ALIVE
        else:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once, without waiting."""
        self._state = _State.CLOSED
        if self._wire is not None:
            self._wire.abort()

    # What the pool asks.

    async def aclose(self) -> None:
        """Closes the connection and waits until its descriptor is gone."""
        self._state = _State.CLOSED
        if self._wire is not None:
            await self._wire.aclose()

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        """Whether the connection leads to `origin`."""
        return origin == self._origin

    def is_available(self) -> bool:
        """Whether a request may be sent now."""
        return self._state is _State.IDLE

    def is_idle(self) -> bool:
        """Whether no exchange is under way."""
        return self._state is _State.IDLE

    def is_closed(self) -> bool:
        """Whether it is of no further use."""
        return self._state is _State.CLOSED

    def is_connected(self) -> bool:
        """Whether it was dialled and not closed."""
        return self._wire is not None and self._state is not _State.CLOSED

    def has_expired(self) -> bool:
        """Whether an idle connection is to be closed: too old, ended by its peer, or allowed by a policy of old."""
        return self._state is _State.IDLE and (
            self._epoch is not self._dialler.epoch()
            or time.monotonic() > self._expires
            or self._wire is None
            or self._wire.stale()
        )

    def info(self) -> str:
        """One line for the pool's `repr`."""
        return f"{self._origin}, HTTP/1.1, {self._state.name}"


class Body:
    """The body of a response on a connection; the pool closes it to get the connection back."""

    __slots__ = ("_connection", "_exchange", "_open")

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange
        self._open = True

    async def next(self) -> bytes | None:
        """The next bytes, still encoded; `None` once the body is complete."""
        # Once it is given back, the connection carries other exchanges: their bytes are not ours to read.
        return await self._connection.next_chunk(self._exchange) if self._open else None

    def abort(self) -> None:
        """Closes the connection at once: a reader wakes with an error."""
        if self._open:
            self._connection.abort()

    async def aclose(self) -> None:
        """Gives the connection back."""
        if self._open:
            self._open = False
            self._connection.release()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.next()) is not None:
            yield chunk


def _closing(chunks: AsyncIterable[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    iterator = aiter(chunks)
    return aclosing(iterator) if isinstance(iterator, AsyncGeneratorType) else nullcontext(iterator)


def _as_bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        # bytes(5) would be five zero bytes.
        raise TypeError(f"a request body must yield bytes, not {type(chunk).__name__}")
    return bytes(chunk)
