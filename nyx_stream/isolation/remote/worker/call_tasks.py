"""The tasks of calls under way, by number, so made that a call hardly waits for its own. Knows no calls.

CPython 3.12 runs the first step of a task at once, and most calls are over after it. Before 3.12 making the task is the
dearest part of an empty call, so one is made ahead, while the worker rests, and waits for its coroutine.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]


class CallTasks:
    """Runs each coroutine in a task of its own, with a context of its own.

    `over` is called when one has ended: with its number, and whether it was cancelled before its first step, so that it
    could not say so itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[int, bool], None]) -> None:
        self._loop = loop
        self._over = over
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._spare: _Spare | None = None

    def cancel(self, number: int) -> None:
        """Cancels one, if it is still under way."""
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

    def _done(self, number: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[number]
        self._over(number, task.cancelled())

    if sys.version_info >= (3, 12):

        def start(self, number: int, work: Work) -> None:
            """Starts `work`, and runs it up to where it waits for something."""
            task = asyncio.Task(work, loop=self._loop, eager_start=True)
            if task.done():
                self._over(number, task.cancelled())
            else:
                self._tasks[number] = task
                task.add_done_callback(lambda task: self._done(number, task))

    else:

        def start(self, number: int, work: Work) -> None:
            """Starts `work`, in the next turn of the loop."""
            spare, self._spare = self._spare, None
            if spare is None or spare.work.done() or spare.task.done():  # a plugin can cancel every task that it finds
                spare = _Spare(self._loop, self._spare_done)
            spare.number = number
            spare.work.set_result(work)
            self._tasks[number] = spare.task

        def _spare_done(self, spare: "_Spare") -> None:
            if spare.number is None:
                return
            spare.work.result().close()  # it may never have begun
            if self._spare is None:
                self._spare = _Spare(self._loop, self._spare_done)
            self._done(spare.number, spare.task)


class _Spare:
    """A task that waits for what it is to run. `number` says what it runs."""

    __slots__ = ("number", "task", "work")

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Callable[["_Spare"], None]) -> None:
        self.number: int | None = None
        self.work: asyncio.Future[Work] = asyncio.Future(loop=loop)
        self.task = asyncio.Task(self._run(), loop=loop)
        self.task.add_done_callback(lambda _task: done(self))

    async def _run(self) -> None:
        await (await self.work)
