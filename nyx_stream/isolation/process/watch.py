"""Looks at the workers of a host from time to time: memory, processor and descriptors, beside what was granted.

The kernel enforces the limits; this is what tells an operator, and what ends a worker that has got past one. Knows
processes and numbers; knows no plugin.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from nyx_stream.isolation.seam import Usage

_log = logging.getLogger("nyx.isolation")

PERIOD = 2.0
"""Seconds between two looks at a worker."""
_BUSY = 90.0
"""Per cent of one processor from which an idle plugin is reported."""
_BATCH = 10
"""Workers looked at before the loop has its turn: one look takes some 100 µs."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker was found to use: resident bytes, per cent of one processor since before, open descriptors."""

    memory: int
    cpu: float
    descriptors: int


@dataclass(slots=True)
class Watched:
    """One worker.

    `memory` and `descriptors` are its limits, all that the process has included. `idle` says whether no call is under
    way; `exceeded` is called with what was found when a limit does not hold.
    """

    name: str
    process: psutil.Process
    memory: int
    descriptors: int
    idle: Callable[[], bool]
    exceeded: Callable[[str], None]
    usage: Look | None = None
    busy: int = 0
    """Looks in a row that found it busy and idle."""


class Watch:
    """Watches workers from their start to their end, in one task for all."""

    def __init__(self) -> None:
        self._watched: dict[int, Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, worker: Watched) -> None:
        """Begins to watch a worker."""
        self._watched[worker.process.pid] = worker
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="nyx:watch")

    def remove(self, pid: int) -> None:
        """Ends it. Harmless for a process that is not watched."""
        self._watched.pop(pid, None)

    async def aclose(self) -> None:
        """Watches no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(PERIOD)
            for number, worker in enumerate(tuple(self._watched.values())):
                if self._watched.get(worker.process.pid) is worker:
                    look_at(worker)
                if number % _BATCH == _BATCH - 1:
                    await asyncio.sleep(0)


def look_at(worker: Watched) -> None:
    """Measures a worker and says what is not as granted. One that is gone is passed over: others see to that."""
    try:
        with worker.process.oneshot():
            usage = Look(worker.process.memory_info().rss, worker.process.cpu_percent(), worker.process.num_fds())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return
    worker.usage = usage
    for what, used, limit in (
        ("memory", usage.memory, worker.memory),
        ("descriptors", usage.descriptors, worker.descriptors),
    ):
        if used > limit:
            worker.exceeded(f"it uses more {what} than it was granted: {used}, of {limit}")
            return
    worker.busy = worker.busy + 1 if usage.cpu >= _BUSY and worker.idle() else 0
    if worker.busy == 1:
        _log.warning("plugin %s keeps a processor busy (%.0f %%), and no call is under way", worker.name, usage.cpu)


def measure(pid: int) -> Usage | None:
    """Measures a process; `None` if it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(process.memory_info().rss, times.user + times.system)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
