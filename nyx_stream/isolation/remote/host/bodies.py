"""Host side of the bodies of one worker: those that it sends, and those that the host sends to it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count

from nyx_stream.isolation.remote.host.broker import Reply
from nyx_stream.isolation.remote.wire.body_stream import STEP, BodyStream, make_pipe
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import fault_of

_log = logging.getLogger("nyx.isolation")

MAX_UPLOADS = 64
"""Pipes that a worker may have announced and not used yet."""


class Uploads:
    """Pipes for bodies that the worker will send. A worker announces each, and names it in the request that uses it."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._pipes: dict[int, BodyStream] = {}

    def give(self) -> Reply:
        """Answers an announcement with a new pipe: its number and the worker's end. Raises `ProtocolFault`."""
        if len(self._pipes) >= MAX_UPLOADS:
            raise ProtocolFault(f"more than {MAX_UPLOADS} bodies are announced")
        number = next(self._numbers)
        self._pipes[number], theirs = make_pipe()
        return Reply(number, (theirs,))

    def take(self, number: int) -> BodyStream:
        """Returns an announced pipe; the caller closes it. Raises `ProtocolFault` for an unknown number."""
        pipe = self._pipes.pop(number, None)
        if pipe is None:
            raise ProtocolFault(f"no body {number} was announced")
        return pipe

    def close(self) -> None:
        while self._pipes:
            self._pipes.popitem()[1].close()


async def send_evenly(pipe: BodyStream, data: bytes) -> None:
    """Sends bytes in steps, each in its own turn of the loop. Raises OSError if the receiver is gone."""
    view = memoryview(data)
    for start in range(0, len(data), STEP):
        await pipe.send(view[start : start + STEP])
        await asyncio.sleep(0)  # `send` may never have waited, and other tasks need their turn


class Downloads:
    """Bodies that the host sends, each in its own task.

    One that the worker does not read stays until the worker closes it, also after its connection was given back.
    """

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> int:
        """Number of bodies that are being sent."""
        return len(self._tasks)

    def begin(
        self, send: Callable[[BodyStream], Awaitable[None]], close: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Starts to send a body; returns the worker's end of its pipe.

        Args:
            send: sends the body. An error that it raises ends the body as a fault. It is cancelled when the worker
                closes its end.
            close: awaited afterwards in every case.
        """
        pipe, theirs = make_pipe()
        task = asyncio.get_running_loop().create_task(self._run(pipe, send, close), name=f"nyx:{self._plugin}:body")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return theirs

    async def close(self) -> None:
        """Cancels all of them and waits until they have ended."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step closes nothing
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(
        self,
        pipe: BodyStream,
        send: Callable[[BodyStream], Awaitable[None]],
        close: Callable[[], Awaitable[None]] | None,
    ) -> None:
        fault, loop = None, asyncio.get_running_loop()
        try:
            if (task := asyncio.current_task()) is not None:
                # A worker sends nothing here: the socket becomes readable when the worker's end is closed.
                loop.add_reader(pipe.socket, task.cancel)
            try:
                await send(pipe)
            except Exception as error:  # reported to the plugin, if the worker is still there
                fault = fault_of(error)
            loop.remove_reader(pipe.socket)
            await pipe.end(fault)
        except OSError:
            return  # the worker has closed its end
        finally:
            if pipe.socket.fileno() >= 0:
                loop.remove_reader(pipe.socket)
                pipe.close()
            if close is not None:
                await close()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("plugin %s: sending a body failed", self._plugin, exc_info=error)
