"""The tasks of one plugin at level `inline`: started, watched, and ended to the last one. Knows nothing of calls."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from typing import Any

from nyx_stream.attribution import as_host, running
from nyx_stream.errors import PluginCrashed
from nyx_stream.isolation.faults import describe
from nyx_stream.isolation.tripwire import Watch

_log = logging.getLogger("nyx.isolation")

_ROUNDS = 5
_PATIENCE = 1.0
"""Seconds that a cancelled task gets before it is cancelled again, `_ROUNDS` times."""


class PluginTasks:
    """Tasks that the plugin starts by `spawn`, and those it starts by asyncio itself, as far as they can be told."""

    def __init__(self, watch: Watch, crashed: Callable[[BaseException], None]) -> None:
        self._watch = watch
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
            left = self._tasks | self._strays(sparing)
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_PATIENCE)
            self._tasks = {task for task in self._tasks if not task.done()}
        for task in self._tasks | self._strays(sparing):
            _log.error("plugin %s: task %s ignores its cancellation and is left behind", self._watch, task.get_name())

    def _strays(self, sparing: Collection["asyncio.Task[Any]"]) -> set["asyncio.Task[Any]"]:
        current = asyncio.current_task()
        return {
            task
            for task in asyncio.all_tasks()
            if task is not current and task not in sparing and not task.done() and self._is_plugins(task)
        }

    def _is_plugins(self, task: "asyncio.Task[Any]") -> bool:
        if hasattr(task, "get_context"):  # Python 3.12
            return task.get_context().get(running) is self._watch
        # Before that, only a coroutine of the plugin's own modules tells. Not its file: a test that lies beside the
        # plugin runs in a task of the host.
        frame = getattr(task.get_coro(), "cr_frame", None)
        return frame is not None and frame.f_builtins is self._watch.names

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
