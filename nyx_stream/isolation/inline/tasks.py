"""What runs a plugin's code at level `inline`: its tasks, and the threads of the default executor."""

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from nyx_stream.attribution import as_host, running
from nyx_stream.errors import PluginCrashed
from nyx_stream.isolation.inline.tripwire import PluginMark
from nyx_stream.text import describe_error

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_log = logging.getLogger("nyx.isolation")

_ATTEMPTS = 5
_CANCEL_TIMEOUT = 1.0
"""Seconds that a cancelled task gets to end before it is cancelled again, at most `_ATTEMPTS` times."""


class Batcher(Generic[_Item, _Result]):
    """Calls `work` once for all items submitted in one turn of the event loop, after that turn.

    Passing over every task or module of the process takes time in proportion to the number of plugins. If each plugin
    did that on its own when a host closes, the time would grow with the square of that number.
    """

    def __init__(self, work: Callable[[list[_Item]], _Result]) -> None:
        self._work = work
        self._items: list[_Item] = []
        self._result: asyncio.Future[_Result] | None = None

    async def submit(self, item: _Item) -> _Result:
        """Returns the result of `work` for the whole batch. The work is done even if the caller is cancelled."""
        if self._result is None:
            loop = asyncio.get_running_loop()
            self._result = loop.create_future()
            loop.call_soon(self._run, self._result)
        self._items.append(item)
        return await asyncio.shield(self._result)

    def _run(self, future: "asyncio.Future[_Result]") -> None:
        items, self._items, self._result = self._items, [], None
        try:
            result = self._work(items)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)


TasksByMark: TypeAlias = dict[int, list["asyncio.Task[Any]"]]
"""Tasks by the identity of the `PluginMark` of their plugin."""


def tasks_by_mark(marks: list[PluginMark]) -> TasksByMark:
    """Returns the tasks of this loop that run code of one of the plugins."""
    if sys.version_info >= (3, 12):
        plugins = {id(mark): id(mark) for mark in marks}
    else:
        plugins = {id(mark.builtins): id(mark) for mark in marks}
    found: TasksByMark = {}
    for task in asyncio.all_tasks():
        plugin = plugins.get(_identity(task))
        if plugin is not None:
            found.setdefault(plugin, []).append(task)
    return found


def _identity(task: "asyncio.Task[Any]") -> int:
    """Returns the identity of the object that tells whose task it is."""
    if sys.version_info >= (3, 12):
        return id(task.get_context().get(running))
    # Before 3.12 a task doesn't expose its context; the builtins of its coroutine tell whether a plugin's module
    # defines it. The file name wouldn't do: a test beside the plugin runs in a task of the host.
    frame = getattr(task.get_coro(), "cr_frame", None)
    return id(frame.f_builtins) if frame is not None else 0


class PluginTasks:
    """The tasks that a plugin starts by `spawn`, and those it starts through asyncio, as far as they can be found."""

    def __init__(
        self,
        mark: PluginMark,
        crashed: Callable[[BaseException], None],
        finder: Batcher[PluginMark, TasksByMark],
    ) -> None:
        self._mark = mark
        self._finder = finder
        self._crashed = crashed
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Starts a task of the plugin."""
        # An empty context: the task must not retain what the caller of some method happened to have in its own.
        context = Context()
        context.run(running.set, self._mark)
        name = f"nyx:{self._mark}:{getattr(coroutine, '__name__', 'task')}"
        task = asyncio.get_running_loop().create_task(self._run(coroutine), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def end(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        """Cancels every task of the plugin and waits for it; logs those that don't end.

        Args:
            sparing: tasks of the host that are inside a call to the plugin, and so look like the plugin's.
        """
        for _ in range(_ATTEMPTS):
            tasks = self._tasks | await self._unspawned(sparing)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT)
            self._tasks = {task for task in self._tasks if not task.done()}
        for task in self._tasks | await self._unspawned(sparing):
            _log.error("plugin %s: task %s ignores its cancellation and is abandoned", self._mark, task.get_name())

    async def _unspawned(self, sparing: Collection["asyncio.Task[Any]"]) -> set["asyncio.Task[Any]"]:
        current = asyncio.current_task()
        found = (await self._finder.submit(self._mark)).get(id(self._mark), ())
        return {task for task in found if task is not current and task not in sparing and not task.done()}

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except (Exception, asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit in a task would end the event loop
            raise PluginCrashed(str(self._mark), f"a background task raised {describe_error(error)}") from error

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A callback runs in the context that it was added in, here the plugin's. What the host does now, and the
            # tasks that it starts, must not be attributed to the plugin.
            with as_host():
                self._crashed(error)


def attribute_default_executor(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the default executor of `loop` carry attribution, whether it exists yet or not. Can be called again.

    `asyncio.to_thread` copies the context, but `loop.run_in_executor` doesn't, and what a plugin runs through it would
    be attributed to the host. Work of the host is passed on unchanged.
    """
    # asyncio has no public attribute for it; other loops may have none.
    executor: Any = getattr(loop, "_default_executor", None)
    if executor is None:
        executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        loop.set_default_executor(executor)
    if "submit" not in vars(executor):  # an existing one is kept, because others may refer to it
        executor.submit = partial(_submit, executor.submit)


def _submit(
    submit: Callable[..., Future[_Result]], fn: Callable[..., _Result], /, *args: Any, **kwargs: Any
) -> Future[_Result]:
    if running.get() is None:
        return submit(fn, *args, **kwargs)
    context = copy_context()
    with as_host():  # a thread that the pool starts now is the framework's
        return submit(context.run, fn, *args, **kwargs)
