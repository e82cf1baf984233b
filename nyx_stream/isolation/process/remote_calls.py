"""Host side of calls and streams: numbers, waiting callers, and what becomes of a cancellation.

A caller that is cancelled waits until its call has ended in the worker, as it would inline, but for `GRACE` at most: a
worker that ignores a cancellation is killed. Knows frames; knows neither the process nor the life of the plugin.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginCallError, PluginError
from nyx_stream.isolation.faults import describe
from nyx_stream.isolation.process.channel import Channel
from nyx_stream.isolation.process.frames import MAX_BODY, Frame, Kind
from nyx_stream.isolation.process.messages import Fault, MethodFace, decode, error_of
from nyx_stream.isolation.process.result_types import Decode, decoder
from nyx_stream.text import escape

GRACE = 1.0
"""Seconds that a call gets to end after it was cancelled."""

_ERRORS: Mapping[str, type[PluginError]] = {"arguments": InvalidArguments, "result": InvalidResult}


class RemoteTraceback(Exception):
    """The traceback of an error in a worker, as text: the cause of what the caller gets."""


class _Method(NamedTuple):
    number: int
    stream: bool
    decode: Decode


class _Inflow:
    """One call or stream under way: what arrived for it and is not yet taken."""

    __slots__ = ("_over", "arrived", "waiter")

    def __init__(self) -> None:
        self.arrived: deque[Frame | PluginError] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self._over = False

    def over(self) -> bool:
        """Whether the last of it has arrived."""
        return self._over

    def put(self, what: "Frame | PluginError", *, last: bool) -> None:
        self.arrived.append(what)
        self._over = last
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def get(self) -> "Frame | PluginError":
        while not self.arrived:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.arrived.popleft()


class RemoteCalls:
    """The calls to one worker. `overdue` is called with a method's name when a cancellation was ignored."""

    def __init__(self, plugin: str, channel: Channel, overdue: Callable[[str], None]) -> None:
        self._plugin = plugin
        self._channel = channel
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._methods: dict[str, _Method] = {}
        self._last = 0
        self._open: dict[int, _Inflow] = {}
        self._failure: PluginError | None = None

    @property
    def methods(self) -> Mapping[str, bool]:
        """The methods on offer: whether each is a stream."""
        return {name: method.stream for name, method in self._methods.items()}

    @property
    def active(self) -> int:
        """Calls and streams that have not ended in the worker."""
        return len(self._open)

    def offer(self, faces: Sequence[MethodFace]) -> None:
        """Takes the methods of READY. Raises `ProtocolFault` for a result type that is not understood."""
        self._methods = {
            face.name: _Method(number, face.stream, decoder(face.returns)) for number, face in enumerate(faces)
        }

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method; see `seam.Isolation.call`."""
        method = self._methods[name]
        number, inflow = self._begin(Kind.CALL, name, method, arguments)
        if self._channel.queued:
            await self._drained(number, name, inflow)
        try:
            frame = await inflow.get()
        except asyncio.CancelledError:
            await self._cancel(number, name, inflow)
            raise
        return self._value(name, method, frame)

    async def stream(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a streaming method; see `seam.Isolation.stream`."""
        method = self._methods[name]
        number, inflow = self._begin(Kind.OPEN, name, method, arguments)
        try:
            while True:
                frame = await inflow.get()
                if isinstance(frame, Frame) and frame.kind is Kind.END:
                    return
                yield self._value(name, method, frame)
                if not inflow.over():
                    self._channel.send(Kind.NEXT, number)
        finally:
            if not inflow.over():
                await self._cancel(number, name, inflow)

    def take(self, frame: Frame) -> None:
        """Takes a RESULT, ITEM, END or FAILED of a call."""
        last = frame.kind is not Kind.ITEM
        inflow = self._open.pop(frame.id) if last else self._open[frame.id]
        inflow.put(frame, last=last)

    def fail(self, failure: PluginError) -> None:
        """Ends every call, and refuses those to come."""
        self._failure = failure
        while self._open:
            _, inflow = self._open.popitem()
            inflow.put(failure, last=True)

    def _begin(self, kind: Kind, name: str, method: _Method, arguments: Mapping[str, Any]) -> tuple[int, _Inflow]:
        if self._failure is not None:
            raise self._failure
        body = self._encoded(name, arguments)
        self._last = number = self._last + 1
        inflow = self._open[number] = _Inflow()
        self._channel.send(kind, number, method.number, body)
        return number, inflow

    def _encoded(self, name: str, arguments: Mapping[str, Any]) -> bytes:
        if not arguments:
            return b"{}"
        try:
            body = to_json(arguments, bytes_mode="base64", inf_nan_mode="constants")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidArguments(self._plugin, f"{name}: {describe(error)}") from error
        if len(body) > MAX_BODY:
            size = f"{len(body)} bytes as JSON, over the limit of {MAX_BODY}"
            raise InvalidArguments(self._plugin, f"{name}: the arguments have {size}")
        return body

    def _value(self, name: str, method: _Method, what: "Frame | PluginError") -> Any:
        if isinstance(what, PluginError):
            raise what
        if what.kind is Kind.FAILED:
            raise self._error(name, decode(Fault, what))
        try:
            return method.decode(what.body)
        except ValueError as error:
            raise InvalidResult(self._plugin, f"{name}: the worker sent another type than it declared") from error

    def _error(self, name: str, fault: Fault) -> Exception:
        return call_error(self._plugin, name, fault)

    async def _drained(self, number: int, name: str, inflow: _Inflow) -> None:
        try:
            await self._channel.drain()
        except asyncio.CancelledError:
            await self._cancel(number, name, inflow)
            raise

    async def _cancel(self, number: int, name: str, inflow: _Inflow) -> None:
        """Cancels in the worker, and waits for the end of it there."""
        if inflow.over():
            return
        self._channel.send(Kind.CANCEL, number)
        timer = self._loop.call_later(GRACE, self._check, number, name)
        try:
            while not inflow.over():
                await inflow.get()
        finally:
            if inflow.over():
                timer.cancel()

    def _check(self, number: int, name: str) -> None:
        if number in self._open:
            self._overdue(name)


def call_error(plugin: str, name: str, fault: Fault) -> Exception:
    """Returns the error of a call, or of `teardown`, that a fault stands for."""
    if fault.denial is not None:
        return error_of(fault, plugin)
    kind = _ERRORS.get(fault.reason, PluginCallError)
    error = kind(plugin, escape(fault.message) if fault.message else f"{name} raised {escape(fault.name)}")
    error.__cause__ = cause_of(fault)
    return error


def cause_of(fault: Fault) -> RemoteTraceback | None:
    """Returns the worker's traceback as an exception, if it sent one; its lines are safe to print."""
    return RemoteTraceback("\n".join(escape(line) for line in fault.trace.splitlines())) if fault.trace else None
