"""Looks at the workers of a host from time to time: memory, processor and descriptors, beside what was granted.

The kernel enforces the limits; this is what tells an operator, and what ends a worker that has got past one. Knows
processes and numbers; knows no plugin.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from nyx_stream.isolation.backend import Usage

_log = logging.getLogger("nyx.isolation")

PERIOD = 2.0
"""Seconds between two looks at a worker."""
_BUSY = 90.0
"""Per cent of one processor from which an idle plugin is reported."""
_BATCH = 10
"""Workers looked at before the loop has its turn: one look takes some 100 µs."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker was found to use: resident bytes, per cent of one processor since before, open descriptors.

    `cpu_time` is the processor time since its start, in seconds.
    """

    memory: int
    cpu: float
    descriptors: int
    cpu_time: float


@dataclass(slots=True)
class Watched:
    """One worker.

    `memory`, `descriptors` and `cpu_time` are its limits, all that the process has included. `idle` says whether no
    call is under way; `exceeded` is called with the limit that does not hold, by its name in a grant, what was found,
    and the limit's value.
    """

    name: str
    process: psutil.Process
    memory: int
    descriptors: int
    cpu_time: float
    idle: Callable[[], bool]
    exceeded: Callable[[str, float, float], None]
    usage: Look | None = None
    busy: int = 0
    """Looks in a row that found it busy and idle."""


class ResourceMonitor:
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
            times = worker.process.cpu_times()
            usage = Look(
                memory=worker.process.memory_info().rss,
                cpu=worker.process.cpu_percent(),
                descriptors=worker.process.num_fds(),
                cpu_time=times.user + times.system,
            )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return
    worker.usage = usage
    for name, used, limit in (
        ("memory", usage.memory, worker.memory),
        ("open_files", usage.descriptors, worker.descriptors),
        ("cpu_time", usage.cpu_time, worker.cpu_time),
    ):
        if used > limit:
            worker.exceeded(name, used, limit)
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
