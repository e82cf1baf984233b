"""The tasks of one plugin at level `inline`: started, watched, and ended to the last one. Knows nothing of calls."""

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeAlias

from nyx_stream.attribution import as_host, running
from nyx_stream.errors import PluginCrashed
from nyx_stream.isolation.code.exception_text import describe
from nyx_stream.isolation.inline.tripwire.hook import PluginMark

if TYPE_CHECKING:
    from nyx_stream.isolation.inline.batcher import Batcher

Census: TypeAlias = "Batcher[PluginMark, dict[int, list[asyncio.Task[Any]]]]"
"""Answers with the tasks of every plugin that asks, by the identity of its watch."""

_log = logging.getLogger("nyx.isolation")

_ROUNDS = 5
_PATIENCE = 1.0
"""Seconds that a cancelled task gets before it is cancelled again, `_ROUNDS` times."""


def take_census(watches: list[PluginMark]) -> dict[int, list["asyncio.Task[Any]"]]:
    """Returns the tasks of this loop that run code of one of the plugins, by the identity of its watch."""
    if sys.version_info >= (3, 12):
        marks = {id(watch): id(watch) for watch in watches}
    else:
        marks = {id(watch.names): id(watch) for watch in watches}
    found: dict[int, list[asyncio.Task[Any]]] = {}
    for task in asyncio.all_tasks():
        watch = marks.get(_mark(task))
        if watch is not None:
            found.setdefault(watch, []).append(task)
    return found


def _mark(task: "asyncio.Task[Any]") -> int:
    """Returns the identity of what tells whose task it is."""
    if sys.version_info >= (3, 12):
        return id(task.get_context().get(running))
    # Before that, only a coroutine of the plugin's own modules tells. Not its file: a test that lies beside the plugin
    # runs in a task of the host.
    frame = getattr(task.get_coro(), "cr_frame", None)
    return id(frame.f_builtins) if frame is not None else 0


class PluginTasks:
    """Tasks that the plugin starts by `spawn`, and those it starts by asyncio itself, as far as they can be told."""

    def __init__(self, watch: PluginMark, crashed: Callable[[BaseException], None], census: Census) -> None:
        self._watch = watch
        self._census = census
        self._crashed = crashed
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Starts a task of the plugin."""
        # A context of its own: the task must not keep what the caller of some method happened to have in its context.
        context = Context()
        context.run(running.set, self._watch)
        name = f"nyx:{self._watch}:{getattr(coroutine, '__name__', 'task')}"
        task = asyncio.get_running_loop().create_task(self._run(coroutine), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def end(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        """Cancels every task of the plugin and waits for it; reports those that will not end.

        Args:
            sparing: tasks of the host that are inside a call to the plugin, and so look like its own.
        """
        for _ in range(_ROUNDS):
            left = self._tasks | await self._strays(sparing)
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_PATIENCE)
            self._tasks = {task for task in self._tasks if not task.done()}
        for task in self._tasks | await self._strays(sparing):
            _log.error("plugin %s: task %s ignores its cancellation and is left behind", self._watch, task.get_name())

    async def _strays(self, sparing: Collection["asyncio.Task[Any]"]) -> set["asyncio.Task[Any]"]:
        current = asyncio.current_task()
        found = (await self._census.ask(self._watch)).get(id(self._watch), ())
        return {task for task in found if task is not current and task not in sparing and not task.done()}

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except (Exception, asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit in a task would end the event loop
            raise PluginCrashed(str(self._watch), f"a background task raised {describe(error)}") from error

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A callback runs in the context it was added in, here the plugin's: what the host does now, and the tasks
            # that it starts, must not count as the plugin's.
            with as_host():
                self._crashed(error)
