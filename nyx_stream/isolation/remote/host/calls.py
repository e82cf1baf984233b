"""Host side of calls and streams: their numbers, their waiting callers, and cancellation.

A caller that is cancelled waits until its call has ended in the worker, as it would inline, but for at most `GRACE`: a
worker that ignores a cancellation is killed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginCallError, PluginError
from nyx_stream.isolation.remote.wire.channel import Channel, FairScheduler
from nyx_stream.isolation.remote.wire.frames import LARGE_BODY, MAX_BODY, Body, Frame, FrameKind, LargeBody
from nyx_stream.isolation.remote.wire.large_value import LargeValue
from nyx_stream.isolation.remote.wire.messages import MethodDescription, RemoteFault, decode, error_of
from nyx_stream.isolation.remote.wire.types import Decode, decoder
from nyx_stream.text import describe_error, escape

GRACE = 1.0
"""Seconds that a call gets to end after it was cancelled."""

_ERRORS: Mapping[str, type[PluginError]] = {"arguments": InvalidArguments, "result": InvalidResult}


class RemoteTraceback(Exception):
    """The traceback of an error in a worker, as text: the cause of the error that the caller gets."""


class _Method(NamedTuple):
    number: int
    stream: bool
    decode: Decode
    returns: JsonValue


_Reply: TypeAlias = Frame | LargeValue | RemoteFault
"""A RESULT, ITEM or END; a large value; or the body of a FAILED."""


class _PendingCall:
    """One call or stream under way.

    `reply` is what it gets next. While the consumer of a stream hasn't taken an item yet, the end of the stream may
    arrive behind it: `_next_reply`.
    """

    __slots__ = ("_loop", "_next_reply", "finished", "large", "method", "reply")

    def __init__(self, method: _Method, loop: asyncio.AbstractEventLoop) -> None:
        self.method = method
        self.large: tuple[LargeBody, LargeValue] | None = None
        """The large value that is arriving."""
        self.finished = False
        """Whether its last frame has arrived."""
        self.reply: asyncio.Future[_Reply] = asyncio.Future(loop=loop)
        self._loop = loop
        self._next_reply: asyncio.Future[_Reply] | None = None

    def resolve(self, reply: _Reply) -> None:
        self._unresolved().set_result(reply)

    def fail(self, error: PluginError) -> None:
        self.finished = True
        future = self._unresolved()
        future.set_exception(error)
        future.exception()  # marks it as retrieved: the caller may be gone

    def advance(self) -> None:
        """Discards the current reply, which was taken."""
        self.reply, self._next_reply = self._next_reply or self._loop.create_future(), None

    def _unresolved(self) -> "asyncio.Future[_Reply]":
        if not self.reply.done():
            return self.reply
        self._next_reply = self._loop.create_future()
        return self._next_reply


class RemoteCalls:
    """Calls to one worker, as in `PluginBackend`. `overdue` gets the name of a method that ignores a cancellation.

    Large values are decoded as steps of `scheduler`.
    """

    def __init__(self, plugin: str, channel: Channel, scheduler: FairScheduler, overdue: Callable[[str], None]) -> None:
        self._plugin = plugin
        self._channel = channel
        self._scheduler = scheduler
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._methods: dict[str, _Method] = {}
        self._last_number = 0
        self._pending: dict[int, _PendingCall] = {}
        self._failure: PluginError | None = None

    @property
    def methods(self) -> Mapping[str, bool]:
        return {name: method.stream for name, method in self._methods.items()}

    @property
    def active(self) -> int:
        """Calls and streams that have not ended in the worker."""
        return len(self._pending)

    def set_methods(self, methods: Sequence[MethodDescription]) -> None:
        """Accepts the methods of READY. Raises `ProtocolFault` for an invalid result type."""
        self._methods = {
            method.name: _Method(number, method.stream, decoder(method.returns), method.returns)
            for number, method in enumerate(methods)
        }

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        method = self._methods[name]
        number, pending = self._send(FrameKind.CALL, name, method, arguments)
        try:
            if self._channel.queued_bytes:
                await self._channel.drain()
            reply = await pending.reply
        except asyncio.CancelledError:
            await self._cancel(number, name, pending)
            raise
        return await self._value(name, method, reply)

    async def stream(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        method = self._methods[name]
        number, pending = self._send(FrameKind.OPEN, name, method, arguments)
        try:
            while True:
                reply = await pending.reply
                if isinstance(reply, Frame) and reply.kind is FrameKind.END:
                    return
                pending.advance()
                yield await self._value(name, method, reply)
                if not pending.finished:
                    self._channel.send(FrameKind.NEXT, number)
        finally:
            await self._cancel(number, name, pending)

    def on_result(self, frame: Frame) -> None:
        pending = self._pending.pop(frame.id)
        pending.finished = True
        pending.resolve(frame if len(frame.body) <= LARGE_BODY else self._finish_large(pending, frame.body))

    def on_failed(self, frame: Frame) -> None:
        fault = decode(RemoteFault, frame)  # not by the caller: a malformed one is a `ProtocolFault`
        pending = self._pending.pop(frame.id)
        pending.finished = True
        pending.resolve(fault)

    def on_item(self, frame: Frame) -> None:
        pending = self._pending[frame.id]
        pending.resolve(frame if len(frame.body) <= LARGE_BODY else self._finish_large(pending, frame.body))

    def on_partial(self, number: int, body: LargeBody) -> None:
        """Handles more of a large RESULT or ITEM: decodes some of what has arrived."""
        if (pending := self._pending.get(number)) is not None:
            self._large_value(pending, body).advance()

    def fail(self, failure: PluginError) -> None:
        """Ends every call, and refuses later ones."""
        self._failure = failure
        while self._pending:
            _, pending = self._pending.popitem()
            pending.fail(failure)

    def _send(
        self, kind: FrameKind, name: str, method: _Method, arguments: Mapping[str, Any]
    ) -> tuple[int, _PendingCall]:
        if self._failure is not None:
            raise self._failure
        body = b"{}"
        if arguments:
            try:
                body = to_json(arguments, bytes_mode="base64", inf_nan_mode="constants")
            except (PydanticSerializationError, ValueError, RecursionError) as error:
                raise InvalidArguments(self._plugin, f"{name}: {describe_error(error)}") from error
        if len(body) > MAX_BODY:
            size = f"{len(body)} bytes as JSON, over the limit of {MAX_BODY}"
            raise InvalidArguments(self._plugin, f"{name}: the arguments have {size}")
        self._last_number = number = self._last_number + 1
        pending = self._pending[number] = _PendingCall(method, self._loop)
        self._channel.send(kind, number, method.number, body)
        return number, pending

    def _large_value(self, pending: _PendingCall, body: LargeBody) -> LargeValue:
        if pending.large is None or pending.large[0] is not body:
            method = pending.method
            pending.large = body, LargeValue(method.decode, method.returns, body, self._scheduler)
        return pending.large[1]

    def _finish_large(self, pending: _PendingCall, body: Body) -> LargeValue:
        value = self._large_value(pending, LargeBody(body) if isinstance(body, bytes) else body)
        pending.large = None
        value.finish()
        return value

    async def _value(self, name: str, method: _Method, reply: _Reply) -> Any:
        if isinstance(reply, RemoteFault):
            raise call_error(self._plugin, name, reply)
        try:
            return await reply.value() if isinstance(reply, LargeValue) else method.decode(bytes(reply.body))
        except ValueError as error:
            raise InvalidResult(self._plugin, f"{name}: the worker sent another type than it declared") from error

    async def _cancel(self, number: int, name: str, pending: _PendingCall) -> None:
        """Cancels a call in the worker, unless it has ended, and waits until it has ended there."""
        if pending.finished:
            return
        self._channel.send(FrameKind.CANCEL, number)
        timer = self._loop.call_later(GRACE, self._check_ended, number, name)
        while number in self._pending:  # another item may arrive before the end
            pending.advance()
            with suppress(PluginError):
                await pending.reply
        timer.cancel()

    def _check_ended(self, number: int, name: str) -> None:
        if number in self._pending:
            self._overdue(name)


def call_error(plugin: str, name: str, fault: RemoteFault) -> Exception:
    """Returns the error of a call, or of `teardown`, that a fault describes."""
    if fault.denial is not None:
        return error_of(fault, plugin)
    kind = _ERRORS.get(fault.reason, PluginCallError)
    error = kind(plugin, escape(fault.message) if fault.message else f"{name} raised {escape(fault.name)}")
    error.__cause__ = cause_of(fault)
    return error


def cause_of(fault: RemoteFault) -> RemoteTraceback | None:
    """Returns the worker's traceback as an exception, safe to print, if the worker sent one."""
    return RemoteTraceback("\n".join(escape(line) for line in fault.trace.splitlines())) if fault.trace else None
