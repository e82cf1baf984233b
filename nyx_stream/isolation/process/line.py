"""Worker side of the capabilities: asks the host and waits for the answer. Knows no capability.

A proxy is made with a `Line` of its own, on first use, by the factory in `proxies.PROXIES`. It is what the plugin
sees: it must look like the capability of an inline plugin. It decides nothing; whatever it checks, the host's handler
checks again.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from pydantic import JsonValue

from nyx_stream.isolation.process.channel import Channel
from nyx_stream.isolation.process.frames import Frame, Kind
from nyx_stream.isolation.process.messages import Answer, Ask, Fault, decode, error_of
from nyx_stream.isolation.process.protocol import MAX_ASKS


class Answered(NamedTuple):
    """What the host answered. The descriptors are the proxy's: it closes them."""

    value: Any
    descriptors: tuple[int, ...]


class Lines:
    """The requests of one worker that are under way."""

    def __init__(self, plugin: str, channel: Callable[[], Channel]) -> None:
        self._plugin = plugin
        self._channel = channel
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Answered] | None] = {}
        self._room = asyncio.Semaphore(MAX_ASKS)

    def to(self, capability: str) -> "Line":
        """Returns the line of one capability."""
        return Line(self, capability)

    async def ask(self, capability: str, action: str, arguments: dict[str, JsonValue]) -> Answered:
        """Asks the host; see `Line.ask`."""
        body = Ask(capability=capability, action=action, arguments=arguments).encode()
        await self._room.acquire()
        channel = self._channel()
        self._last = number = self._last + 1
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            channel.send(Kind.ASK, number, body=body)
        except BaseException:
            del self._waiting[number]
            self._room.release()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result().descriptors)  # the answer came in the same moment
            elif number in self._waiting:
                self._waiting[number] = None  # its answer is still to come
                channel.send(Kind.CANCEL, number)
            raise

    def answer(self, frame: Frame) -> None:
        """Takes an ANSWER or a REFUSED."""
        self._room.release()
        future = self._waiting.pop(frame.id)
        if future is None or future.done():
            _close(frame.descriptors)
        elif frame.kind is Kind.ANSWER:
            future.set_result(Answered(decode(Answer, frame).value, frame.descriptors))
        else:
            future.set_exception(error_of(decode(Fault, frame), self._plugin))


class Line:
    """Asks the host on behalf of one capability."""

    __slots__ = ("_lines", "capability")

    def __init__(self, lines: Lines, capability: str) -> None:
        self._lines = lines
        self.capability = capability

    async def ask(self, action: str, **arguments: JsonValue) -> Answered:
        """Asks the host to do something, and waits until it is done. Cancelling this cancels it at the host.

        Raises:
            SandboxDenied, LimitExceeded, OSError: as the handler raised them.
            CapabilityError: the handler raised something else.
        """
        return await self._lines.ask(self.capability, action, arguments)


ProxyFactory: TypeAlias = Callable[[Line], Any]


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
