"""Restarts crashed plugins, a bounded number of times and after growing delays."""

import asyncio
import logging
import time
from math import inf

from nyx_stream.errors import NyxError
from nyx_stream.host.observability.metrics import State
from nyx_stream.host.operations.start import Starter
from nyx_stream.host.runtime.plugin_record import PluginRecord

_log = logging.getLogger("nyx.host")

MAX_RESTARTS = 5
"""Restarts in a row before a plugin stays failed."""

DELAYS = (0.0, 0.5, 2.0, 8.0, 30.0)
"""Seconds before each of them."""

STABLE_SECONDS = 60.0
"""Seconds that a plugin must run before its restarts are counted from zero again."""


class Restarter:
    """The pending restarts of one host."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, int] = {}
        self._running_since: dict[str, float] = {}

    def schedule(self, record: PluginRecord) -> None:
        """Restarts a failed plugin after a delay, unless it was restarted too often."""
        name = record.id
        if time.monotonic() - self._running_since.get(name, -inf) > STABLE_SECONDS:
            self._attempts[name] = 0
        if name in self._tasks or self._attempts[name] >= MAX_RESTARTS:
            return
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(record), name=f"nyx:restart:{name}")

    def cancel(self, record: PluginRecord) -> None:
        """Cancels the restarts of a plugin, and its count of them."""
        self._attempts.pop(record.id, None)
        self._running_since.pop(record.id, None)
        task = self._tasks.pop(record.id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancels all restarts."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, record: PluginRecord) -> None:
        name = record.id
        try:
            while self._attempts[name] < MAX_RESTARTS:
                await asyncio.sleep(DELAYS[self._attempts[name]])
                self._attempts[name] += 1
                try:
                    await self._restart(record)
                except NyxError as error:
                    _log.error(
                        "plugin %s: restart %d of %d failed: %s", name, self._attempts[name], MAX_RESTARTS, error
                    )
                    continue
                if record.state is not State.FAILED:
                    self._running_since[name] = time.monotonic()
                    return
                # It failed again before this task resumed: `schedule` did nothing, because this task was there.
            _log.error("plugin %s stays failed after %d restarts", name, MAX_RESTARTS)
        finally:
            self._tasks.pop(name, None)

    async def _restart(self, record: PluginRecord) -> None:
        async with record.changing:
            if record.state is State.FAILED:  # unless a reload came first
                record.restarts += 1
                await record.require_run().stop()
                await self._starter.load(record)
