"""Worker side of capability requests: asks the host, waits for its answer, and reports the end of a lease.

Theory of operation
-------------------
A capability in a worker is a facade over a service of the *worker binding* (see `isolation.registry`), which asks the
host through a `CapabilityStub`. It decides nothing: the host binding checks every request.

A stub represents the plugin's own capability, or one that was narrowed from it. The host gave each narrowed one a
number. When its stub is garbage collected, the number is returned with the next `narrow`, and the host ends it.
"""

import asyncio
import gc
import os
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
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

OnEnd: TypeAlias = Callable[[Exception], None]

_URGENT = frozenset({FrameKind.RESPONSE, FrameKind.REQUEST_FAILED, FrameKind.LEASE_ENDED, FrameKind.LOG_ACK})
"""Frames that run no code of the plugin: handled while `ask_blocking` waits."""


class RpcReply(NamedTuple):
    """The host's answer. The caller owns the descriptors and closes them."""

    value: Any
    descriptors: tuple[int, ...]


class RpcClient:
    """The requests of one worker, and the numbers of its narrowed capabilities."""

    def __init__(self, plugin: str, channel: Callable[[], Channel]) -> None:
        self.plugin = plugin
        self._channel = channel
        self._last = 0
        self._pending: dict[int, asyncio.Future[RpcReply] | None] = {}
        """By number. `None` for a request that was cancelled and is not answered yet."""
        self._slots = asyncio.Semaphore(MAX_REQUESTS - 1)  # one more is for `ask_blocking`
        self._blocking = 0
        self.on_end: dict[int | str, weakref.WeakMethod[OnEnd]] = {}
        """What to call when a lease ends, by the number of a narrowed capability or the name of the plugin's own."""
        self._narrowed = 0
        # Appended to by the garbage collector, which may run anywhere: nothing can be sent at that moment.
        self._returned: deque[int] = deque()

    def to(self, capability: str, number: int = 0) -> "CapabilityStub":
        """Returns the stub of the plugin's own capability, or of a narrowed one."""
        stub = CapabilityStub(self, capability, number)
        if number:
            self._narrowed += 1
            weakref.finalize(stub, self._returned.append, number).atexit = False
        return stub

    def take_returned(self) -> list[int]:
        """Returns the numbers of the narrowed stubs that were garbage collected since the last call."""
        if self._narrowed - len(self._returned) >= MAX_NARROWED:
            gc.collect()
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        for number in returned:
            self.on_end.pop(number, None)
        self._narrowed -= len(returned)
        return returned

    async def ask(self, request: CapabilityRequest) -> RpcReply:
        body = request.encode()
        await self._slots.acquire()
        channel = self._channel()
        try:
            number, future = self._send(channel, body)
        except BaseException:
            self._slots.release()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result().descriptors)  # the answer arrived in the same turn of the loop
            elif number in self._pending:
                self._pending[number] = None
                channel.send(FrameKind.CANCEL, number)
            raise

    def ask_blocking(self, request: CapabilityRequest) -> RpcReply:
        channel = self._channel()
        self._blocking, future = self._send(channel, request.encode())
        channel.wait(future.done, _URGENT)
        return future.result()

    def ended(self, frame: Frame) -> None:
        """Handles LEASE_ENDED."""
        ended = decode(LeaseEnded, frame)
        reference = self.on_end.get(frame.id or ended.capability)
        method = None if reference is None else reference()
        if method is not None:
            method(error_of(ended.fault, self.plugin))

    def answer(self, frame: Frame) -> None:
        """Handles RESPONSE and REQUEST_FAILED."""
        if frame.id != self._blocking:
            self._slots.release()
        future = self._pending.pop(frame.id)
        if future is None or future.done():
            _close(frame.descriptors)
        elif frame.kind is FrameKind.RESPONSE:
            future.set_result(RpcReply(decode(CapabilityResponse, frame).value, frame.descriptors))
        else:
            future.set_exception(error_of(decode(RemoteFault, frame), self.plugin))

    def _send(self, channel: Channel, body: bytes) -> "tuple[int, asyncio.Future[RpcReply]]":
        future: asyncio.Future[RpcReply] = asyncio.get_running_loop().create_future()
        self._last = number = self._last + 1
        self._pending[number] = future
        try:
            channel.send(FrameKind.REQUEST, number, body=body)
        except BaseException:
            del self._pending[number]
            raise
        return number, future


class CapabilityStub:
    """Asks the host on behalf of one capability: the plugin's own, or one that was narrowed from it."""

    __slots__ = ("__weakref__", "_client", "capability", "number", "plugin")

    def __init__(self, client: RpcClient, capability: str, number: int = 0) -> None:
        self._client = client
        self.capability = capability
        self.number = number
        """The number of a narrowed capability; 0 for the plugin's own."""
        self.plugin = client.plugin

    def ask(self, action: str, **arguments: JsonValue) -> Coroutine[Any, Any, RpcReply]:
        """Asks the host to do something, and waits for the answer. Cancelling this cancels it at the host.

        Raises:
            SandboxDenied, LimitExceeded, OSError: as the host binding raised them.
            CapabilityError: the host binding raised anything else.
        """
        return self._client.ask(self._request(action, arguments))

    def ask_blocking(self, action: str, **arguments: JsonValue) -> RpcReply:
        """As `ask`, for an answer that comes at once: blocks the event loop until it is there.

        Raises as `ask`, and RuntimeError in a thread without a running loop.
        """
        return self._client.ask_blocking(self._request(action, arguments))

    def narrow(self, rules: Sequence[str], terms: Mapping[str, Term | None], mode: str = "r") -> "CapabilityStub":
        """Has the host narrow the capability, blocking until it is done; returns the stub of the narrowed one.

        The host keeps that until the stub is garbage collected.

        Raises:
            SandboxDenied: a rule covers more than this capability grants, or the lease has ended.
            LimitExceeded: the host keeps no more narrowed capabilities, or not so many rules.
        """
        if len(rules) > MAX_RULES:
            raise self._too_many(MAX_RULES, f"{len(rules)} rules in one")
        longest = max(map(len, rules))
        if longest > MAX_RULE_LENGTH:
            raise self._too_many(MAX_RULE_LENGTH, f"a rule has {longest} characters")
        returned: list[JsonValue] = [*self._client.take_returned()]
        answer = self.ask_blocking(NARROW, rules=[*rules], mode=mode, terms={**terms}, returned=returned)
        return self._client.to(self.capability, answer.value)

    def on_end(self, method: OnEnd) -> None:
        """Has a method called with the error when the capability's lease ends. Keeps no reference to its object."""
        self._client.on_end[self.number or self.capability] = weakref.WeakMethod(method)

    def _request(self, action: str, arguments: dict[str, JsonValue]) -> CapabilityRequest:
        return CapabilityRequest(capability=self.capability, action=action, arguments=arguments, narrowed=self.number)

    def _too_many(self, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self.plugin, limit="rules", allowed=allowed, detail=detail)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
