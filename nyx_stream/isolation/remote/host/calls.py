"""Host side of calls and streams: numbers, waiting callers, and what becomes of a cancellation.

A caller that is cancelled waits until its call has ended in the worker, as it would inline, but for `GRACE` at most: a
worker that ignores a cancellation is killed. Knows frames; knows neither the process nor the life of the plugin.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginCallError, PluginError
from nyx_stream.isolation.code.exception_text import describe
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import LARGE, MAX_BODY, Body, Frame, Kind, Pieces
from nyx_stream.isolation.remote.wire.large_value import Reading
from nyx_stream.isolation.remote.wire.messages import MethodFace, RemoteFault, decode, error_of
from nyx_stream.isolation.remote.wire.types import Decode, decoder
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
    returns: JsonValue


_Arrival = Frame | Reading | RemoteFault
"""A RESULT, ITEM or END, one that is large, or what a FAILED says."""


class _Pending:
    """One call or stream under way.

    `arrival` is what comes next for it: of a call there is one, its last. After an item that nobody has taken yet, the
    end of the stream may arrive: `following`.
    """

    __slots__ = ("_following", "_loop", "arrival", "method", "over", "reading")

    def __init__(self, method: _Method, loop: asyncio.AbstractEventLoop) -> None:
        self.method = method
        self.reading: tuple[Pieces, Reading] | None = None
        """The large value that is arriving."""
        self._loop = loop
        self.arrival: asyncio.Future[_Arrival] = asyncio.Future(loop=loop)
        self._following: asyncio.Future[_Arrival] | None = None
        self.over = False
        """Whether the last of it has arrived."""

    def put(self, arrival: _Arrival) -> None:
        """Something arrived."""
        place = self.arrival
        if place.done():
            place = self._vacant()
        place.set_result(arrival)

    def fail(self, error: PluginError) -> None:
        """Nothing more will arrive."""
        self.over = True
        vacant = self._vacant()
        vacant.set_exception(error)
        vacant.exception()  # retrieved: its caller may have gone

    def advance(self) -> None:
        """What arrived was taken."""
        self.arrival, self._following = self._following or self._loop.create_future(), None

    def _vacant(self) -> "asyncio.Future[_Arrival]":
        if not self.arrival.done():
            return self.arrival
        self._following = self._loop.create_future()
        return self._following


class RemoteCalls:
    """The calls to one worker. `overdue` is called with a method's name when a cancellation was ignored.

    A large value takes turns with whatever else the workers of the host have it do.
    """

    def __init__(self, plugin: str, channel: Channel, turns: FairScheduler, overdue: Callable[[str], None]) -> None:
        self._plugin = plugin
        self._channel = channel
        self._turns = turns
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._methods: dict[str, _Method] = {}
        self._last = 0
        self._open: dict[int, _Pending] = {}
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
            face.name: _Method(number, face.stream, decoder(face.returns), face.returns)
            for number, face in enumerate(faces)
        }

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method; see `seam.Isolation.call`."""
        method = self._methods[name]
        number, pending = self._begin(Kind.CALL, name, method, arguments)
        try:
            if self._channel.queued:
                await self._channel.drain()
            arrival = await pending.arrival
        except asyncio.CancelledError:
            await self._cancel(number, name, pending)
            raise
        if isinstance(arrival, Reading):
            return await self._read(name, arrival)
        return self._value(name, method, arrival)

    async def stream(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a streaming method; see `seam.Isolation.stream`."""
        method = self._methods[name]
        number, pending = self._begin(Kind.OPEN, name, method, arguments)
        try:
            while True:
                arrival = await pending.arrival
                if isinstance(arrival, Frame) and arrival.kind is Kind.END:
                    return
                pending.advance()
                if isinstance(arrival, Reading):
                    yield await self._read(name, arrival)
                else:
                    yield self._value(name, method, arrival)
                if not pending.over:
                    self._channel.send(Kind.NEXT, number)
        finally:
            await self._cancel(number, name, pending)

    def take(self, frame: Frame) -> None:
        """Takes the last frame of a call or stream that did not fail: RESULT or END."""
        pending = self._open.pop(frame.id)
        pending.over = True
        pending.put(frame if len(frame.body) <= LARGE else self._large(pending, frame.body))

    def take_failed(self, frame: Frame) -> None:
        """Takes a FAILED of a call or stream. Raises `ProtocolFault` if it is malformed.

        It is read here and not by the caller: a fault of the protocol is the end of the worker, and no caller's error.
        """
        fault = decode(RemoteFault, frame)
        pending = self._open.pop(frame.id)
        pending.over = True
        pending.put(fault)

    def take_item(self, frame: Frame) -> None:
        """Takes an ITEM of a stream."""
        pending = self._open[frame.id]
        pending.put(frame if len(frame.body) <= LARGE else self._large(pending, frame.body))

    def grow(self, number: int, body: Pieces) -> None:
        """Takes more of a RESULT or ITEM that is large: what there is of it is read already."""
        pending = self._open.get(number)
        if pending is not None:
            self._reading(pending, body).grow()

    def fail(self, failure: PluginError) -> None:
        """Ends every call, and refuses those to come."""
        self._failure = failure
        while self._open:
            _, pending = self._open.popitem()
            pending.fail(failure)

    def _begin(self, kind: Kind, name: str, method: _Method, arguments: Mapping[str, Any]) -> tuple[int, _Pending]:
        if self._failure is not None:
            raise self._failure
        body = self._encoded(name, arguments) if arguments else b"{}"
        self._last = number = self._last + 1
        pending = self._open[number] = _Pending(method, self._loop)
        self._channel.send(kind, number, method.number, body)
        return number, pending

    def _encoded(self, name: str, arguments: Mapping[str, Any]) -> bytes:
        try:
            body = to_json(arguments, bytes_mode="base64", inf_nan_mode="constants")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidArguments(self._plugin, f"{name}: {describe(error)}") from error
        if len(body) > MAX_BODY:
            size = f"{len(body)} bytes as JSON, over the limit of {MAX_BODY}"
            raise InvalidArguments(self._plugin, f"{name}: the arguments have {size}")
        return body

    def _reading(self, pending: _Pending, body: Pieces) -> Reading:
        if pending.reading is None or pending.reading[0] is not body:
            method = pending.method
            pending.reading = body, Reading(method.decode, method.returns, body, self._turns)
        return pending.reading[1]

    def _large(self, pending: _Pending, body: Body) -> Reading:
        reading = self._reading(pending, Pieces.of(body) if isinstance(body, bytes) else body)
        pending.reading = None
        reading.end()
        return reading

    async def _read(self, name: str, reading: Reading) -> Any:
        try:
            return await reading.value()
        except ValueError as error:
            raise self._misfit(name) from error

    def _value(self, name: str, method: _Method, arrival: Frame | RemoteFault) -> Any:
        if isinstance(arrival, RemoteFault):
            raise call_error(self._plugin, name, arrival)
        try:
            return method.decode(bytes(arrival.body))
        except ValueError as error:
            raise self._misfit(name) from error

    def _misfit(self, name: str) -> InvalidResult:
        return InvalidResult(self._plugin, f"{name}: the worker sent another type than it declared")

    async def _cancel(self, number: int, name: str, pending: _Pending) -> None:
        """Cancels in the worker, and waits for the end of it there. Nothing to do for what is over."""
        if pending.over:
            return
        self._channel.send(Kind.CANCEL, number)
        timer = self._loop.call_later(GRACE, self._check, number, name)
        while number in self._open:  # an item may still come before the end
            pending.advance()
            with suppress(PluginError):
                await pending.arrival
        timer.cancel()

    def _check(self, number: int, name: str) -> None:
        if number in self._open:
            self._overdue(name)


def call_error(plugin: str, name: str, fault: RemoteFault) -> Exception:
    """Returns the error of a call, or of `teardown`, that a fault stands for."""
    if fault.denial is not None:
        return error_of(fault, plugin)
    kind = _ERRORS.get(fault.reason, PluginCallError)
    error = kind(plugin, escape(fault.message) if fault.message else f"{name} raised {escape(fault.name)}")
    error.__cause__ = cause_of(fault)
    return error


def cause_of(fault: RemoteFault) -> RemoteTraceback | None:
    """Returns the worker's traceback as an exception, if it sent one; its lines are safe to print."""
    return RemoteTraceback("\n".join(escape(line) for line in fault.trace.splitlines())) if fault.trace else None
