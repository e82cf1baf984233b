"""A request under way: from the pool's queue to the last byte of its response, and how the lease ends it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpcore2

from nyx_stream.capabilities.http.credentials import conceal, conceal_error
from nyx_stream.capabilities.http.error_mapper import ErrorMapper
from nyx_stream.capabilities.http.errors import Exceeded
from nyx_stream.capabilities.http.exchange import Exchange, Sink
from nyx_stream.capabilities.http.transport.pool import Pool

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.transport.connection import HttpConnection
    from nyx_stream.capabilities.lease import Lease


class InFlight:
    """One exchange on its way through the pool, registered with the lease while it lasts."""

    __slots__ = (
        "_answers", "_closed", "_connection", "_exchange", "_loop", "_pool", "_release", "_request", "_waiting",
    )  # fmt: skip

    def __init__(self, pool: Pool, lease: "Lease", answers: ErrorMapper, request: Any, exchange: Exchange) -> None:
        self._pool = pool
        self._answers = answers
        self._request = request
        self._exchange = exchange
        self._connection: HttpConnection | None = None
        self._waiting: asyncio.Timeout | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._release = lease.hold(self._end, busy=True)

    async def launch(self, started: float) -> Any:
        """Sends the request and returns the response of the dialect's library, its body unread.

        `started` is when it began (`time.perf_counter`). Raises the dialect's errors.
        """
        try:
            async with asyncio.timeout(None) as self._waiting:
                self._connection = await self._pool.send(self._exchange)
        except BaseException as error:
            self._release()
            self._explain(error)
            raise
        finally:
            self._waiting = None
        return self._response(started)

    def _end(self) -> None:
        # The lease ends: an open connection is closed, a task that waits for a response or for a sink wakes at once.
        if self._connection is not None:
            self._connection.abort()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._loop.time())

    def _response(self, started: float) -> Any:
        head, dialect = self._exchange.head, self._answers.dialect
        if head is None:
            raise httpcore2.RemoteProtocolError("no response where one was due")
        headers, reason, secrets = head.headers, head.reason, self._exchange.secrets
        if secrets:
            headers = [(conceal(name, secrets), conceal(value, secrets)) for name, value in headers]
            reason = conceal(reason, secrets)
        response = dialect.response(
            head.status,
            headers=headers,
            stream=dialect.body(
                lambda: self._next(), lambda: self._drain(), lambda: self._close(), lambda sink: self._relay(sink)
            ),
            extensions={"http_version": head.version, "reason_phrase": reason},
            request=self._request,
        )
        response.begin(self._answers.plugin, self._exchange.bounds.response_bytes, started)
        return response

    async def _next(self) -> bytes | None:
        """The next bytes of the body, still encoded; `None` at its end."""
        # Once it is given back, the connection carries other exchanges: their bytes are not ours to read.
        if self._closed or self._connection is None:
            return None
        try:
            chunk = await self._connection.next_chunk(self._exchange)
            # A body that ends with its connection would look complete after the lease closed it.
            self._answers.check(self._request)
        except BaseException as error:
            self._fail(error)
            raise
        return chunk

    async def _relay(self, sink: Sink) -> None:
        """Passes what is left of the body on, nothing of it once the lease has ended; the connection is given back."""
        if self._closed or self._connection is None:
            return
        try:
            checked = _Checked(sink, lambda: self._answers.check(self._request))
            async with self._in_time():
                await self._connection.relay(self._exchange, checked)
            self._answers.check(self._request)
        except BaseException as error:
            self._fail(error)
            raise
        self._give_back()  # there is nothing left to read on it

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Lets the lease end what is done meanwhile. Raises `ReadTimeout` at the deadline, whoever is waited for."""
        try:
            async with asyncio.timeout_at(self._exchange.deadline) as self._waiting:
                yield
        except TimeoutError as error:
            if self._waiting is None or not self._waiting.expired():
                raise  # it is the sink's
            raise httpcore2.ReadTimeout("timed out") from error
        finally:
            self._waiting = None

    async def _drain(self) -> bytes:
        """The whole body, still encoded; the connection is given back."""
        parts: list[bytes] = []
        while (chunk := await self._next()) is not None:
            if not parts:
                self._check_declared()
            parts.append(chunk)
        await self._close()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_declared(self) -> None:
        try:
            self._exchange.check_declared()
        except Exceeded as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._give_back()
        self._explain(error)

    def _explain(self, error: BaseException) -> None:
        if self._exchange.secrets:
            conceal_error(error, self._exchange.secrets)
        self._answers.explain(error, self._request)

    async def _close(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()
            if self._connection is not None:
                self._pool.give_back(self._connection)


class _Checked:
    """A sink that looks whether it may, before it takes anything."""

    __slots__ = ("_check", "_sink", "drain")

    def __init__(self, sink: Sink, check: Callable[[], None]) -> None:
        self._sink = sink
        self._check = check
        self.drain = sink.drain

    def offer(self, chunk: bytes | memoryview) -> bool:
        self._check()
        return self._sink.offer(chunk)
