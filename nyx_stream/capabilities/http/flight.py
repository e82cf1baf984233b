"""A request under way: from the pool's queue to the last byte of its response, and how the lease ends it."""

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import httpcore2

from nyx_stream.capabilities.http.dialect import Dialect
from nyx_stream.capabilities.http.exchange import Chunks, Exchange
from nyx_stream.capabilities.http.verdicts import Exceeded

if TYPE_CHECKING:
    from collections.abc import Callable


class Judge(Protocol):
    """What a flight asks of the gate it passed."""

    @property
    def plugin(self) -> str | None:
        """Id of the plugin."""

    def check(self, dialect: Dialect, request: Any) -> None:
        """Raises once the lease has ended."""

    def explain(self, dialect: Dialect, request: Any, error: BaseException) -> None:
        """Raises the dialect's error for an inner one."""


class Flight:
    """Registered with the lease while it lasts. `waiting` is the scope of the wait for the response's head."""

    __slots__ = (
        "_chunks", "_closed", "_dialect", "_exchange", "_gate", "_loop", "_pooled", "_request", "release", "waiting",
    )  # fmt: skip

    def __init__(self, gate: Judge, dialect: Dialect, request: Any, exchange: Exchange) -> None:
        self._gate = gate
        self._dialect = dialect
        self._request = request
        self._exchange = exchange
        self._pooled: httpcore2.Response | None = None
        self._chunks: Chunks | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.waiting: asyncio.Timeout | None = None
        self.release: Callable[[], None] = _nothing

    def end(self) -> None:
        """What the lease calls when it ends: the waiting task wakes at once, an open connection is closed."""
        if self._chunks is not None:
            self._chunks.abort()
        elif self.waiting is not None:
            self.waiting.reschedule(self._loop.time())

    def land(self, pooled: httpcore2.Response, started: float) -> Any:
        """The response of the dialect's library. Its stream holds three functions and nothing else."""
        head, self._chunks = self._exchange.head, self._exchange.chunks
        self._pooled = pooled
        if head is None or self._chunks is None:
            raise httpcore2.RemoteProtocolError("no response where one was due")
        response = self._dialect.response(
            head.status,
            headers=head.headers,
            stream=self._dialect.body(lambda: self.next(), lambda: self.drain(), lambda: self.close()),
            extensions={"http_version": head.version, "reason_phrase": head.reason},
            request=self._request,
        )
        response.begin(self._gate.plugin, self._exchange.bounds.response_bytes, started)
        return response

    async def next(self) -> bytes | None:
        """The next bytes of the body, still encoded. Raises the dialect's errors."""
        if self._closed or self._chunks is None:
            return None
        try:
            chunk = await self._chunks.next()
            # A body that ends with its connection would look complete after the lease closed it.
            self._gate.check(self._dialect, self._request)
        except BaseException as error:
            await self._fail(error)
            raise
        return chunk

    async def drain(self) -> bytes:
        """The whole body, still encoded; the connection is given back. Raises the dialect's errors."""
        chunk = await self.next()
        if chunk is None:
            await self.close()
            return b""
        try:
            self._exchange.check_declared()
        except Exceeded as error:
            await self._fail(error)
            raise
        parts = [chunk]
        while (chunk := await self.next()) is not None:
            parts.append(chunk)
        await self.close()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Gives the connection back, or closes it if the body was not read to its end."""
        if not self._closed:
            self._closed = True
            self.release()
            if self._pooled is not None:
                await self._pooled.aclose()

    async def _fail(self, error: BaseException) -> None:
        await self.close()
        self._gate.explain(self._dialect, self._request, error)


def _nothing() -> None:
    return
