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
        self._on_end: dict[int | str, weakref.WeakMethod[OnEnd]] = {}
        self._narrowed = 0
        # Appended to by the garbage collector, which may run anywhere: nothing can be sent at that moment.
        self._returned: deque[int] = deque()

    def to(self, capability: str) -> "CapabilityStub":
        """Returns the stub of the plugin's own capability."""
        return CapabilityStub(self, capability)

    async def ask(self, request: CapabilityRequest) -> RpcReply:
        """See `CapabilityStub.ask`."""
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
        """See `CapabilityStub.ask_blocking`."""
        channel = self._channel()
        self._blocking, future = self._send(channel, request.encode())
        channel.wait(future.done, _URGENT)
        return future.result()

    def narrow(
        self, stub: "CapabilityStub", rules: Sequence[str], mode: str, terms: Mapping[str, Term | None]
    ) -> "CapabilityStub":
        """See `CapabilityStub.narrow`."""
        if len(rules) > MAX_RULES:
            raise self._exceeded("rules", MAX_RULES, f"{len(rules)} rules in one")
        longest = max(map(len, rules))
        if longest > MAX_RULE_LENGTH:
            raise self._exceeded("rules", MAX_RULE_LENGTH, f"a rule has {longest} characters")
        if self._narrowed - len(self._returned) >= MAX_NARROWED:
            gc.collect()
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        for number in returned:
            self._on_end.pop(number, None)
        self._narrowed -= len(returned)
        answer = stub.ask_blocking(NARROW, rules=list(rules), mode=mode, terms=dict(terms), returned=list(returned))
        less = CapabilityStub(self, stub.capability, answer.value)
        self._narrowed += 1
        weakref.finalize(less, self._returned.append, answer.value).atexit = False
        return less

    def on_end(self, key: int | str, method: OnEnd) -> None:
        """See `CapabilityStub.on_end`."""
        self._on_end[key] = weakref.WeakMethod(method)

    def ended(self, frame: Frame) -> None:
        """Handles LEASE_ENDED."""
        ended = decode(LeaseEnded, frame)
        reference = self._on_end.get(frame.id or ended.capability)
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

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self.plugin, limit=limit, allowed=allowed, detail=detail)


class CapabilityStub:
    """Asks the host on behalf of one capability: the plugin's own, or one that was narrowed from it."""

    __slots__ = ("__weakref__", "_client", "_number", "capability", "plugin")

    def __init__(self, client: RpcClient, capability: str, number: int = 0) -> None:
        self._client = client
        self._number = number
        self.capability = capability
        self.plugin = client.plugin

    @property
    def narrowed(self) -> bool:
        """Whether it represents a narrowed capability."""
        return self._number != 0

    def ask(self, action: str, **arguments: JsonValue) -> Coroutine[Any, Any, RpcReply]:
        """Asks the host to do something, and waits for the answer. Cancelling this cancels it at the host.

        Raises:
            SandboxDenied, LimitExceeded, OSError: as the host binding raised them.
            CapabilityError: the host binding raised anything else.
        """
        return self._client.ask(
            CapabilityRequest(capability=self.capability, action=action, arguments=arguments, narrowed=self._number)
        )

    def ask_blocking(self, action: str, **arguments: JsonValue) -> RpcReply:
        """As `ask`, for an answer that comes at once: blocks the event loop until it is there.

        Raises as `ask`, and RuntimeError in a thread without a running loop.
        """
        return self._client.ask_blocking(
            CapabilityRequest(capability=self.capability, action=action, arguments=arguments, narrowed=self._number)
        )

    def narrow(self, rules: Sequence[str], terms: Mapping[str, Term | None], mode: str = "r") -> "CapabilityStub":
        """Has the host narrow the capability, blocking until it is done; returns the stub of the narrowed one.

        The host keeps that until the stub is garbage collected.

        Raises:
            SandboxDenied: a rule covers more than this capability grants, or the lease has ended.
            LimitExceeded: the host keeps no more narrowed capabilities, or not so many rules.
        """
        return self._client.narrow(self, rules, mode, terms)

    def on_end(self, method: OnEnd) -> None:
        """Has a method called with the error when the capability's lease ends. Keeps no reference to its object."""
        self._client.on_end(self._number or self.capability, method)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
