"""A body on its way from its connection to a sink, in the very turn of the loop in which it arrives: no task, no queue
and no copy in between. Knows neither the pool nor the library above.
"""

import asyncio
from collections.abc import Callable

import h11
import httpcore2

from nyx_stream.capabilities.http.exchange import CHUNKS_AT_ONCE, Exchange, Sink
from nyx_stream.capabilities.http.transport.byte_stream import ByteStream

_Take = Callable[[memoryview], bool]


class Relay:
    """What is left of one body. `counted` says afterwards that the end of it went past h11."""

    def __init__(
        self, exchange: Exchange, sink: Sink, feed: Callable[[bytes | memoryview], None], event: Callable[[], object]
    ) -> None:
        self._exchange = exchange
        self._sink = sink
        self._feed = feed
        self._event = event
        self._over = False
        self.counted = False
        self.surplus = False
        """Whether there came more than the body."""

    async def run(self, wire: ByteStream) -> None:
        """Returns once the sink has all of it. Raises as the connection does, and what the sink raises."""
        while not self._over:
            await self._sink.drain()
            if not self.counted and not self._pass_on():
                await asyncio.sleep(0)
                continue
            # h11 has nothing kept, and would copy each byte three times to count it.
            self.counted = self._exchange.left > 0
            take = self._take_counted if self.counted else self._take_framed
            if not await wire.relay(take, self._exchange.timeouts.read) and not self._over:
                self._end()
        await wire.settle()
        await self._sink.drain()

    def _pass_on(self) -> bool:
        """Passes on what h11 has, or some of it; returns whether it needs more."""
        passed = 0
        while isinstance(event := self._event(), h11.Data):
            self._exchange.received(len(event.data))
            passed += 1
            if not self._sink.offer(event.data) or passed == CHUNKS_AT_ONCE:
                return False
        self._over = event is not h11.NEED_DATA
        return not self._over

    def _take_framed(self, data: memoryview) -> bool:
        self._feed(data)
        return self._pass_on()

    def _take_counted(self, data: memoryview) -> bool:
        size, left = len(data), self._exchange.left
        self._exchange.arrived(size)
        if size >= left:
            self._over, self.surplus = True, size > left
            data, size = data[:left], left
        self._exchange.received(size)
        return self._sink.offer(data) and not self._over

    def _end(self) -> None:
        if self.counted:
            got, left = self._exchange.taken, self._exchange.left
            cut = "peer closed connection without sending complete message body"  # h11's words
            raise httpcore2.RemoteProtocolError(f"{cut} (received {got} bytes, expected {got + left})")
        self._feed(b"")
