"""Worker side of calls and streams: each in its own task, validated both ways, ended by cancellation."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError

from nyx_stream.errors import SandboxDenied
from nyx_stream.isolation.code.exports import Method
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import MAX_BODY, Frame, FrameKind
from nyx_stream.isolation.remote.wire.messages import Reason, RemoteFault, fault_of, text
from nyx_stream.isolation.remote.worker.log import RemoteLog
from nyx_stream.text import describe_error, format_traceback

_RESULT = FrameKind.RESULT  # before CPython 3.12 it is slow to read a member off its class


class _Invalid(Exception):
    """Arguments or a result that don't validate. The plugin's code never raises this class."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


class ExportedCalls:
    """The calls and streams under way. Each number gets one last frame: RESULT, END or FAILED.

    `call`, `open`, `next` and `cancel` handle the frame of that name.
    """

    def __init__(self, channel: Channel, log: RemoteLog) -> None:
        self._send = channel.send
        self._log = log
        self._tasks = CallTasks(asyncio.get_running_loop(), self._task_done)
        self._methods: tuple[Method, ...] = ()
        self._demands: dict[int, asyncio.Event] = {}
        self.offered = False
        """Whether calls are accepted."""

    def offer(self, methods: Mapping[str, Method]) -> None:
        """Starts to accept calls. The positions in `methods` are the numbers that the host uses."""
        self._methods = tuple(methods.values())
        self.offered = True

    def call(self, frame: Frame) -> None:
        self._tasks.start(frame.id, self._call(frame.id, self._methods[frame.detail], bytes(frame.body)))

    def open(self, frame: Frame) -> None:
        self._demands[frame.id] = asyncio.Event()
        self._tasks.start(frame.id, self._stream(frame.id, self._methods[frame.detail], bytes(frame.body)))

    def next(self, frame: Frame) -> None:
        if (event := self._demands.get(frame.id)) is not None:
            event.set()

    def cancel(self, frame: Frame) -> None:
        self._tasks.cancel(frame.id)

    async def end(self) -> None:
        """Cancels all calls and streams and waits until they have ended."""
        await self._tasks.end()

    def _task_done(self, number: int, unstarted: bool) -> None:
        self._demands.pop(number, None)
        if unstarted:
            self._send(FrameKind.FAILED, number, body=RemoteFault(reason="call", name="CancelledError").encode())

    async def _call(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            body = _encode(method, await _begin(method, arguments))
        except BaseException as error:
            self._send(FrameKind.FAILED, number, body=_fault(method, error))
        else:
            self._send(_RESULT, number, 0, body)

    async def _stream(self, number: int, method: Method, arguments: bytes) -> None:
        try:
            items = _begin(method, arguments)
            try:
                # One item for each demand, as inline: the generator never runs ahead of its consumer.
                demand = self._demands[number]
                async for item in items:
                    demand.clear()
                    self._send(FrameKind.ITEM, number, body=_encode(method, item))
                    await demand.wait()
            finally:
                await self._close(method, items)
        except BaseException as error:
            self._send(FrameKind.FAILED, number, body=_fault(method, error))
        else:
            self._send(FrameKind.END, number)

    async def _close(self, method: Method, items: Any) -> None:
        try:
            await items.aclose()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # not the consumer's concern: it has all the items it wanted
            self._log.warning("%s: closing the stream raised", method.name, exc_info=error)


def _begin(method: Method, arguments: bytes) -> Any:
    try:
        return method.begin_json(arguments)
    except ValidationError as error:
        raise _Invalid("arguments", method.invalid_arguments(error).message) from error


def _encode(method: Method, value: Any) -> bytes:
    try:
        checked = method.check(value, from_attributes=True)
    except ValidationError as error:
        raise _Invalid("result", method.invalid_result(error).message) from error
    try:
        body = method.encode(checked)
    except Exception as error:  # the serializers of a model are the plugin's code
        raise _Invalid("result", f"{method.name}: the result cannot be encoded: {describe_error(error)}") from error
    if len(body) > MAX_BODY:
        message = f"{method.name}: the result has {len(body)} bytes as JSON, over the limit of {MAX_BODY}"
        raise _Invalid("result", message)
    return body


def _fault(method: Method, error: BaseException) -> bytes:
    if isinstance(error, _Invalid):
        return RemoteFault(reason=error.reason, message=text(error.message)).encode()
    if isinstance(error, SandboxDenied):
        return fault_of(error, trace=format_traceback(error)).encode()
    return raised(method.name, "call", error).encode()


def raised(what: str, reason: Reason, error: BaseException) -> RemoteFault:
    """Returns an error that the plugin's code raised in `what` as a fault."""
    message = text(f"{what} raised {describe_error(error)}")
    return RemoteFault(reason=reason, name=type(error).__name__[:256], message=message, trace=format_traceback(error))


Work: TypeAlias = Coroutine[Any, Any, None]


class CallTasks:
    """Runs each call in its own task, with its own context, so that it begins as soon as possible.

    CPython 3.12 runs the first step of a task at once, and most calls need no second. Before 3.12, creating the task is
    the most expensive part of an empty call, so one is created in advance, while the worker is idle.

    `done` is called when a call has ended: with its number, and whether it was cancelled before its first step, in
    which case it couldn't report that itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Callable[[int, bool], None]) -> None:
        self._loop = loop
        self._done = done
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._spare: tuple[asyncio.Future[Work], asyncio.Task[None]] | None = None
        """A task made in advance, and the future by which it gets its work."""

    def cancel(self, number: int) -> None:
        if (task := self._tasks.get(number)) is not None:
            task.cancel()

    async def end(self) -> None:
        """Cancels all calls and waits until they have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    if sys.version_info >= (3, 12):

        def start(self, number: int, work: Work) -> None:
            """Starts a call, and runs it until it waits for something."""
            task = asyncio.Task(work, loop=self._loop, eager_start=True)
            if task.done():
                self._done(number, task.cancelled())
                return
            self._tasks[number] = task
            task.add_done_callback(lambda task: self._task_done(number, task))

    else:

        def start(self, number: int, work: Work) -> None:
            """Starts a call, in the next turn of the loop."""
            spare, self._spare = self._spare, None
            if spare is None or spare[0].done() or spare[1].done():  # a plugin can cancel every task it finds
                spare = self._make_spare()
            received, task = spare
            received.set_result(work)
            self._tasks[number] = task
            task.add_done_callback(lambda task: self._spare_done(number, task, work))

        def _make_spare(self) -> "tuple[asyncio.Future[Work], asyncio.Task[None]]":
            received: asyncio.Future[Work] = self._loop.create_future()
            return received, asyncio.Task(_run_received(received), loop=self._loop)

        def _spare_done(self, number: int, task: "asyncio.Task[None]", work: Work) -> None:
            work.close()  # it may never have begun
            self._spare = self._spare or self._make_spare()
            self._task_done(number, task)

    def _task_done(self, number: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[number]
        self._done(number, task.cancelled())


async def _run_received(received: "asyncio.Future[Work]") -> None:
    await (await received)
