"""The connections of one plugin, by origin.

httpcore's pool scans every connection for every request; at concurrency 32 that costs a third of a request. This one
takes the last idle connection of an origin from a stack, and counts exchanges with a fair semaphore.
"""

import asyncio
import time

from nyx_stream.capabilities.http.exchange import Exchange, Origin, ResponseHead
from nyx_stream.capabilities.http.service import FaultKind, HttpFault
from nyx_stream.capabilities.http.transport.connection import KEEP_ALIVE, HttpConnection
from nyx_stream.capabilities.network import Dialer


class Pool:
    """At most `size` connections, idle ones included; further exchanges wait, first come first served."""

    def __init__(self, dialer: Dialer, size: int) -> None:
        self._dialer = dialer
        self._size = size
        self._exchanges = asyncio.Semaphore(size)
        self._open: set[HttpConnection] = set()
        # Per origin, the last used at the end. Open connections that serve no exchange are all here, so that one can
        # be closed when an exchange was admitted and the pool is full.
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, exchange: Exchange) -> tuple[HttpConnection, ResponseHead]:
        """Sends the exchange's request and receives its response's head; the caller gives the connection back.

        Raises as `HttpConnection.send`, and RuntimeError once the pool is closed.
        """
        if self._closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        if self._exchanges.locked():
            await self._wait(exchange)
        else:
            await self._exchanges.acquire()
        try:
            verdict = exchange.verdict
            connection = self._take((verdict.scheme, verdict.host, verdict.port))
        except BaseException:
            self._exchanges.release()
            raise
        try:
            return connection, await connection.send(exchange)
        except BaseException:
            self.give_back(connection)
            raise

    def give_back(self, connection: HttpConnection) -> None:
        """Ends an exchange: its connection serves the next one if it can."""
        self._exchanges.release()
        if not connection.release():
            self._open.discard(connection)
            return
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._close_old)

    def abort(self) -> None:
        """Closes every connection at once, without waiting; exchanges under way fail."""
        for connection in self._open:
            connection.abort()
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def aclose(self) -> None:
        """Closes every connection and waits until their descriptors are gone."""
        self._closed = True
        connections = list(self._open)
        self.abort()
        for connection in connections:
            await connection.aclose()

    async def _wait(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(exchange.wait(exchange.timeouts.pool)):
                await self._exchanges.acquire()
        except TimeoutError as error:
            raise HttpFault(FaultKind.POOL_TIMEOUT, "timed out") from error

    def _take(self, origin: Origin) -> HttpConnection:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.stale():
                return connection
            self._drop(connection)
        if len(self._open) >= self._size:
            self._drop_oldest()
        connection = HttpConnection(origin, self._dialer)
        self._open.add(connection)
        return connection

    def _drop(self, connection: HttpConnection) -> None:
        connection.abort()
        self._open.discard(connection)

    def _drop_oldest(self) -> None:
        stacks = [stack for stack in self._idle.values() if stack]
        if stacks:
            self._drop(min(stacks, key=lambda stack: stack[0].idle_since).pop(0))

    def _close_old(self) -> None:
        self._sweep = None
        before = time.monotonic() - KEEP_ALIVE
        for origin, stack in list(self._idle.items()):
            for connection in stack:
                if connection.idle_since <= before:
                    self._drop(connection)
            kept = [connection for connection in stack if connection in self._open]
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._close_old)
