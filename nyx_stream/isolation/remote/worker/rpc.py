"""Worker side of the capabilities: asks the host, waits for the answer, and tells a proxy that its lease has ended.
Knows no capability.

A proxy is made on first use, with a `CapabilityStub` of its own, by the factory in `stubs.PROXIES`. It is what the
plugin sees: it must look like the capability of an inline plugin. It decides nothing; the host's handler checks again
whatever it checks.
"""

import asyncio
import gc
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from pydantic import JsonValue

from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind
from nyx_stream.isolation.remote.wire.messages import (
    MAX_NARROWED,
    MAX_RULE_LENGTH,
    MAX_RULES,
    NARROW,
    CapabilityRequest,
    CapabilityResponse,
    LeaseEnded,
    RemoteFault,
    decode,
    error_of,
)
from nyx_stream.isolation.remote.wire.protocol import MAX_REQUESTS
from nyx_stream.policy.limits import Term

_AT_ONCE = frozenset({FrameKind.RESPONSE, FrameKind.REQUEST_FAILED, FrameKind.LEASE_ENDED, FrameKind.LOG_ACK})
"""Frames that start no code of the plugin's: taken while `ask_at_once` waits."""


class RpcReply(NamedTuple):
    """What the host answered. The descriptors are the proxy's: it closes them."""

    value: Any
    descriptors: tuple[int, ...]


class RpcClient:
    """The requests of one worker that are under way, and the numbers of what it has narrowed."""

    def __init__(self, plugin: str, channel: Callable[[], Channel]) -> None:
        self._plugin = plugin
        self._channel = channel
        self._last = 0
        self._waiting: dict[int, asyncio.Future[RpcReply] | None] = {}
        self._room = asyncio.Semaphore(MAX_REQUESTS - 1)  # one more is for `ask_at_once`
        self._at_once = 0
        self._ends: dict[int | str, weakref.WeakMethod[OnEnd]] = {}
        self._held = 0
        # Filled wherever garbage is collected, so it is no place to send anything from.
        self._returned: deque[int] = deque()

    def to(self, capability: str) -> "CapabilityStub":
        """Returns the line of one capability."""
        return CapabilityStub(self, capability)

    async def ask(self, ask: CapabilityRequest) -> RpcReply:
        """Asks the host; see `CapabilityStub.ask`."""
        body = ask.encode()
        await self._room.acquire()
        channel = self._channel()
        try:
            number, future = self._send(channel, body)
        except BaseException:
            self._room.release()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result().descriptors)  # the answer came in the same moment
            elif number in self._waiting:
                self._waiting[number] = None  # its answer is still to come
                channel.send(FrameKind.CANCEL, number)
            raise

    def narrow(
        self, line: "CapabilityStub", rules: Sequence[str], mode: str, terms: Mapping[str, Term | None]
    ) -> "CapabilityStub":
        """Has the host narrow a capability; see `CapabilityStub.narrow`."""
        if len(rules) > MAX_RULES:
            raise self._exceeded("rules", MAX_RULES, f"{len(rules)} rules in one")
        longest = max(map(len, rules))
        if longest > MAX_RULE_LENGTH:
            raise self._exceeded("rules", MAX_RULE_LENGTH, f"a rule has {longest} characters")
        if self._held - len(self._returned) >= MAX_NARROWED:
            gc.collect()
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        for number in returned:
            self._ends.pop(number, None)
        self._held -= len(returned)
        arguments: dict[str, JsonValue] = {
            "rules": list(rules), "mode": mode, "terms": dict(terms), "returned": list(returned)
        }  # fmt: skip
        answered = self.ask_at_once(line.asking(NARROW, arguments))
        less = CapabilityStub(self, line.capability, answered.value)
        self._held += 1
        weakref.finalize(less, self._returned.append, answered.value).atexit = False
        return less

    def on_end(self, key: int | str, told: "OnEnd") -> None:
        """See `CapabilityStub.on_end`."""
        self._ends[key] = weakref.WeakMethod(told)

    def ended(self, frame: Frame) -> None:
        """Takes an ENDED."""
        ended = decode(LeaseEnded, frame)
        method = self._ends.get(frame.id or ended.capability)
        told = None if method is None else method()
        if told is not None:
            told(error_of(ended.fault, self._plugin))

    def answer(self, frame: Frame) -> None:
        """Takes an ANSWER or a REFUSED."""
        if frame.id != self._at_once:
            self._room.release()
        future = self._waiting.pop(frame.id)
        if future is None or future.done():
            _close(frame.descriptors)
        elif frame.kind is FrameKind.RESPONSE:
            future.set_result(RpcReply(decode(CapabilityResponse, frame).value, frame.descriptors))
        else:
            future.set_exception(error_of(decode(RemoteFault, frame), self._plugin))

    def ask_at_once(self, ask: CapabilityRequest) -> RpcReply:
        """Asks the host; see `CapabilityStub.ask_at_once`."""
        channel = self._channel()
        self._at_once, future = self._send(channel, ask.encode())
        channel.wait(future.done, _AT_ONCE)
        return future.result()

    def _send(self, channel: Channel, body: bytes) -> "tuple[int, asyncio.Future[RpcReply]]":
        future: asyncio.Future[RpcReply] = asyncio.get_running_loop().create_future()
        self._last = number = self._last + 1
        self._waiting[number] = future
        try:
            channel.send(FrameKind.REQUEST, number, body=body)
        except BaseException:
            del self._waiting[number]
            raise
        return number, future

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self._plugin, limit=limit, allowed=allowed, detail=detail)


class CapabilityStub:
    """Asks the host on behalf of one capability: the plugin's own, or one that was narrowed from it."""

    __slots__ = ("__weakref__", "_lines", "_number", "capability")

    def __init__(self, lines: RpcClient, capability: str, number: int = 0) -> None:
        self._lines = lines
        self._number = number
        self.capability = capability

    @property
    def narrowed(self) -> bool:
        """Whether what it leads to was narrowed."""
        return self._number != 0

    async def ask(self, action: str, **arguments: JsonValue) -> RpcReply:
        """Asks the host to do something, and waits until it is done. Cancelling this cancels it at the host.

        Raises:
            SandboxDenied, LimitExceeded, OSError: as the handler raised them.
            CapabilityError: the handler raised something else.
        """
        return await self._lines.ask(self.asking(action, arguments))

    def ask_at_once(self, action: str, **arguments: JsonValue) -> RpcReply:
        """Asks the host, and waits on this very stack, the event loop standing still; for what is answered at once.

        Raises as `ask`, and RuntimeError in a thread that no loop runs in.
        """
        return self._lines.ask_at_once(self.asking(action, arguments))

    def narrow(self, rules: Sequence[str], terms: Mapping[str, Term | None], mode: str = "r") -> "CapabilityStub":
        """Has the host narrow the capability, and waits for it on this very stack; returns the line to what comes out.

        The host keeps that until nothing refers to the line any more.

        Raises:
            SandboxDenied: it is more than is held, or the lease has ended.
            LimitExceeded: the host keeps no more, or not so many rules.
        """
        return self._lines.narrow(self, rules, mode, terms)

    def on_end(self, told: "OnEnd") -> None:
        """Has a method called with the error when the lease behind the capability ends; does not keep its object."""
        self._lines.on_end(self._number or self.capability, told)

    def asking(self, action: str, arguments: dict[str, JsonValue]) -> CapabilityRequest:
        """Returns a request on this line."""
        return CapabilityRequest(capability=self.capability, action=action, arguments=arguments, narrowed=self._number)


OnEnd: TypeAlias = Callable[[Exception], None]
ProxyFactory: TypeAlias = Callable[[CapabilityStub], Any]


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
