"""Starting crashed plugins again, a bounded number of times. Knows when, not how."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from math import inf

from nyx_stream.errors import NyxError
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.plugin_record import PluginRecord

_log = logging.getLogger("nyx.host")

TRIES = 5
"""Restarts in a row before a plugin stays failed."""

DELAYS = (0.0, 0.5, 2.0, 8.0, 30.0)
"""Seconds before each of them."""

STEADY = 60.0
"""Seconds that a plugin must run for its tries to count anew."""


class Restarts:
    """The restarts under way of one host."""

    def __init__(self, start: Callable[[PluginRecord], Awaitable[None]]) -> None:
        self._start = start
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def schedule(self, entry: PluginRecord) -> None:
        """Starts a failed plugin again, later, unless it has been tried too often."""
        name = entry.id
        if time.monotonic() - self._since.get(name, -inf) > STEADY:
            self._tried[name] = 0
        if name in self._tasks or self._tried[name] >= TRIES:
            return
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(entry), name=f"nyx:restart:{name}")

    def forget(self, entry: PluginRecord) -> None:
        """Gives up on a plugin that is being unloaded."""
        self._tried.pop(entry.id, None)
        self._since.pop(entry.id, None)
        task = self._tasks.pop(entry.id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Gives up on all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, entry: PluginRecord) -> None:
        name = entry.id
        try:
            while self._tried[name] < TRIES:
                await asyncio.sleep(DELAYS[self._tried[name]])
                self._tried[name] += 1
                try:
                    await self._restart(entry)
                except NyxError as error:
                    _log.error("plugin %s: restart %d of %d failed: %s", name, self._tried[name], TRIES, error)
                    continue
                if entry.state is not State.FAILED:
                    self._since[name] = time.monotonic()
                    return
                # It failed again before this task came to know that it ran: `schedule` left that to this task.
            _log.error("plugin %s stays failed after %d restarts", name, TRIES)
        finally:
            self._tasks.pop(name, None)

    async def _restart(self, entry: PluginRecord) -> None:
        async with entry.changing:
            if entry.state is State.FAILED:  # or a reload was first
                entry.restarts += 1
                await entry.alive().stop()
                await self._start(entry)
