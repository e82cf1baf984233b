"""Worker side of calls and streams: each in a task of its own, validated both ways, ended by cancellation.

Knows frames and methods; knows neither the socket nor the life of the worker.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from nyx_stream.errors import SandboxDenied
from nyx_stream.isolation.code.exception_text import describe, trace_of
from nyx_stream.isolation.code.exports import Method
from nyx_stream.isolation.remote.wire.frames import MAX_BODY, Frame, Kind
from nyx_stream.isolation.remote.wire.messages import Reason, RemoteFault, fault_of, text
from nyx_stream.isolation.remote.worker.call_tasks import CallTasks
from nyx_stream.isolation.remote.worker.log import RemoteLog

_RESULT = Kind.RESULT  # reading it off its class is slow before CPython 3.12


class Send(Protocol):
    """Sends a frame to the host, as `Channel.send`."""

    def __call__(self, kind: Kind, number: int = 0, detail: int = 0, body: bytes = b"") -> None: ...


class _Misfit(Exception):
    """Arguments or a result that do not fit: raised here, where the plugin's own errors cannot be taken for it."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


class ExportedCalls:
    """What the host has called and is not over. Every number gets one last frame: RESULT, END or FAILED."""

    def __init__(self, send: Send, log: RemoteLog) -> None:
        self._send = send
        self._log = log
        self._tasks = CallTasks(asyncio.get_running_loop(), self._over)
        self._methods: tuple[Method, ...] = ()
        self._demands: dict[int, asyncio.Event] = {}
        self.offered = False
        """Whether calls are taken."""

    def offer(self, methods: Mapping[str, Method]) -> None:
        """Opens for calls: the places in `methods` are the numbers that the host uses."""
        self._methods = tuple(methods.values())
        self.offered = True

    def call(self, frame: Frame) -> None:
        """Starts a call."""
        self._tasks.start(frame.id, self._call(frame.id, self._methods[frame.detail], bytes(frame.body)))

    def open(self, frame: Frame) -> None:
        """Starts a stream."""
        self._demands[frame.id] = asyncio.Event()
        self._tasks.start(frame.id, self._stream(frame.id, self._methods[frame.detail], bytes(frame.body)))

    def next(self, frame: Frame) -> None:
        """The consumer of a stream asks for its next item."""
        event = self._demands.get(frame.id)
        if event is not None:
            event.set()

    def cancel(self, frame: Frame) -> None:
        """Cancels a call or a stream, if it is still under way."""
        self._tasks.cancel(frame.id)

    async def end(self) -> None:
        """Cancels all of them and waits for their end."""
        await self._tasks.end()

    def _over(self, number: int, silent: bool) -> None:
        self._demands.pop(number, None)
        if silent:
            self._send(Kind.FAILED, number, body=RemoteFault(reason="call", name="CancelledError").encode())

    async def _call(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            body = _encoded(method, await _begun(method, arguments))
        except BaseException as error:
            self._send(Kind.FAILED, number, body=_fault(method, error))
        else:
            self._send(_RESULT, number, 0, body)

    async def _stream(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            items = _begun(method, arguments)
            try:
                # One item for each demand, as inline: the generator never runs ahead of its consumer.
                demand = self._demands[number]
                async for item in items:
                    demand.clear()
                    self._send(Kind.ITEM, number, body=_encoded(method, item))
                    await demand.wait()
            finally:
                await self._close(method, items)
        except BaseException as error:
            self._send(Kind.FAILED, number, body=_fault(method, error))
        else:
            self._send(Kind.END, number)

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
        return RemoteFault(reason=error.reason, message=text(error.message)).encode()
    if isinstance(error, SandboxDenied):
        return fault_of(error, trace=trace_of(error)).encode()
    return raised(method.name, "call", error).encode()


def raised(what: str, reason: Reason, error: BaseException) -> RemoteFault:
    """Returns what the plugin's code raised in `what`, as a fault."""
    message = text(f"{what} raised {describe(error)}")
    return RemoteFault(reason=reason, name=type(error).__name__[:256], message=message, trace=trace_of(error))
