"""Worker side of calls and streams: each in a task of its own, validated both ways, ended by cancellation.

Knows frames and methods; knows neither the socket nor the life of the worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from nyx_stream.errors import SandboxDenied
from nyx_stream.isolation.exports import Method
from nyx_stream.isolation.faults import describe, trace_of
from nyx_stream.isolation.process.frames import MAX_BODY, Frame, Kind
from nyx_stream.isolation.process.messages import Fault, Reason, fault_of, text
from nyx_stream.isolation.process.protocol import Connection
from nyx_stream.isolation.process.remote_log import RemoteLog


class Send(Protocol):
    """Sends a frame to the host."""

    def __call__(self, kind: Kind, number: int = 0, body: bytes = b"") -> None: ...


class _Misfit(Exception):
    """Arguments or a result that do not fit: raised here, where the plugin's own errors cannot be taken for it."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


class ExportedCalls:
    """What the host has called and is not over. Every number gets one last frame: RESULT, END or FAILED."""

    def __init__(
        self, connection: Connection, send: Send, drain: Callable[[], Awaitable[None]], log: RemoteLog
    ) -> None:
        self._connection = connection
        self._send = send
        self._drain = drain
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._methods: tuple[Method, ...] = ()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._consumed: dict[int, asyncio.Event] = {}
        self.offered = False
        """Whether calls are taken."""

    def offer(self, methods: Mapping[str, Method]) -> None:
        """Opens for calls: the places in `methods` are the numbers that the host uses."""
        self._methods = tuple(methods.values())
        self.offered = True

    def call(self, frame: Frame) -> None:
        """Starts a call."""
        self._start(frame.id, self._call(frame.id, self._methods[frame.detail], frame.body))

    def open(self, frame: Frame) -> None:
        """Starts a stream."""
        self._consumed[frame.id] = asyncio.Event()
        self._start(frame.id, self._stream(frame.id, self._methods[frame.detail], frame.body))

    def consumed(self, number: int) -> None:
        """The host has consumed items of a stream."""
        event = self._consumed.get(number)
        if event is not None:
            event.set()

    def cancel(self, number: int) -> None:
        """Cancels a call or a stream, if it is still under way."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """Cancels all of them and waits for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, number: int, coroutine: Any) -> None:
        task = self._tasks[number] = self._loop.create_task(coroutine)
        task.add_done_callback(lambda task: self._done(number, task))

    def _done(self, number: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[number]
        self._consumed.pop(number, None)
        if task.cancelled():  # before its first step, so that it could not say so itself
            self._send(Kind.FAILED, number, Fault(reason="call", name="CancelledError").encode())

    async def _call(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            body = _encoded(method, await _begun(method, arguments))
        except BaseException as error:
            self._send(Kind.FAILED, number, _fault(method, error))
        else:
            self._send(Kind.RESULT, number, body)

    async def _stream(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            items = _begun(method, arguments)
            try:
                async for item in items:
                    body = _encoded(method, item)
                    await self._room(number, len(body))
                    self._send(Kind.ITEM, number, body)
            finally:
                await self._close(method, items)
        except BaseException as error:
            self._send(Kind.FAILED, number, _fault(method, error))
        else:
            self._send(Kind.END, number)

    async def _room(self, number: int, size: int) -> None:
        """Waits until an item may be sent."""
        event = self._consumed[number]
        while not self._connection.item_fits(number, size):
            event.clear()
            await event.wait()
        await self._drain()

    async def _close(self, method: Method, items: Any) -> None:
        try:
            await items.aclose()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the stream is over: its consumer has what it wanted
            self._log.warning("%s: closing the stream raised", method.name, exc_info=error)


def _begun(method: Method, arguments: bytes) -> Any:
    try:
        return method.begin_json(arguments)
    except ValidationError as error:
        raise _Misfit("arguments", method.invalid_arguments(error).message) from error


def _encoded(method: Method, value: Any) -> bytes:
    try:
        checked = method.check(value, from_attributes=True)
    except ValidationError as error:
        raise _Misfit("result", method.invalid_result(error).message) from error
    try:
        body = method.encode(checked)
    except Exception as error:  # the serializers of a model are the plugin's code
        raise _Misfit("result", f"{method.name}: the result cannot be encoded: {describe(error)}") from error
    if len(body) > MAX_BODY:
        message = f"{method.name}: the result has {len(body)} bytes as JSON, over the limit of {MAX_BODY}"
        raise _Misfit("result", message)
    return body


def _fault(method: Method, error: BaseException) -> bytes:
    if isinstance(error, _Misfit):
        return Fault(reason=error.reason, message=text(error.message)).encode()
    if isinstance(error, SandboxDenied):
        return fault_of(error, trace=trace_of(error)).encode()
    return raised(method.name, "call", error).encode()


def raised(what: str, reason: Reason, error: BaseException) -> Fault:
    """Returns what the plugin's code raised in `what`, as a fault."""
    message = text(f"{what} raised {describe(error)}")
    return Fault(reason=reason, name=type(error).__name__[:256], message=message, trace=trace_of(error))
