"""Host side of the bodies of one worker: those it is about to send, and those that are sent to it.

Knows the pipes, and nothing of what flows through them.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from itertools import count

from nyx_stream.isolation.remote.host.broker import Reply
from nyx_stream.isolation.remote.wire.body_stream import STEP, BodyStream, make_pipe
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import fault_of

_log = logging.getLogger("nyx.isolation")

Send = Callable[[BodyStream], Awaitable[None]]
"""Sends a body, but for its end."""

MOST_UPLOADS = 64
"""Pipes that a worker may have asked for and not used yet."""


class Uploads:
    """Pipes for bodies that the worker will send: given out first, then named by the request that they belong to."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._pipes: dict[int, BodyStream] = {}

    def give(self) -> Reply:
        """Answers a request for a pipe: its number, and the worker's end. Raises `ProtocolFault` for one too many."""
        if len(self._pipes) >= MOST_UPLOADS:
            raise ProtocolFault(f"more than {MOST_UPLOADS} bodies are announced")
        number = next(self._numbers)
        self._pipes[number], theirs = make_pipe()
        return Reply(number, (theirs,))

    def take(self, number: int) -> BodyStream:
        """Returns a pipe that was given out; the caller closes it. Raises `ProtocolFault` if there is none."""
        pipe = self._pipes.pop(number, None)
        if pipe is None:
            raise ProtocolFault(f"no body {number} was announced")
        return pipe

    def close(self) -> None:
        """Closes those that were never used."""
        while self._pipes:
            self._pipes.popitem()[1].close()


async def send_evenly(pipe: BodyStream, data: bytes) -> None:
    """Sends some bytes in steps, each in a turn of the loop. Raises OSError if the receiver is gone."""
    view = memoryview(data)
    for start in range(0, len(data), STEP):
        await pipe.send(view[start : start + STEP])
        # Neither side may have made it wait, and others have their turn too.
        await asyncio.sleep(0)


class Downloads:
    """Bodies on their way to the worker, each in a task of its own.

    One that the worker does not read stays as long as the worker keeps it, also after its connection was given back.
    """

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, send: Send, close: Callable[[], Awaitable[None]]) -> int:
        """Starts to send; returns the worker's end. `close` is awaited when the body is over, one way or the other.

        What `send` raises ends the body as a fault. When the worker closes its end, sending is cancelled.
        """
        pipe, theirs = make_pipe()
        task = asyncio.get_running_loop().create_task(self._run(pipe, send, close), name=f"nyx:{self._plugin}:body")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return theirs

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def close(self) -> None:
        """Cancels what is under way and waits for it."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step closes nothing
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, pipe: BodyStream, send: Send, close: Callable[[], Awaitable[None]]) -> None:
        fault, loop = None, asyncio.get_running_loop()
        try:
            if (task := asyncio.current_task()) is not None:
                # The worker has nothing to say here: what makes the socket readable is that its end was closed.
                loop.add_reader(pipe.socket, task.cancel)
            try:
                await send(pipe)
            except Exception as error:  # what went wrong is the plugin's to know, if it is still there
                fault = fault_of(error)
            loop.remove_reader(pipe.socket)
            await pipe.end(fault)
        except OSError:
            return  # the worker does not want it any more
        finally:
            if pipe.socket.fileno() >= 0:
                loop.remove_reader(pipe.socket)
                pipe.close()
            await close()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("plugin %s: sending a body failed", self._plugin, exc_info=error)


def discard(reply: Reply) -> None:
    """Closes the descriptors of a reply that is not sent."""
    for descriptor in reply.descriptors:
        os.close(descriptor)
