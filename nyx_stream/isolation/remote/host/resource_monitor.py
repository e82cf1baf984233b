"""Measures the workers of a host at regular intervals and compares their usage with their limits.

The kernel enforces the limits. The monitor reports to the operator, and ends a worker that is over one nevertheless.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from nyx_stream.isolation.backend import ProcessUsage

_log = logging.getLogger("nyx.isolation")

PERIOD = 2.0
"""Seconds between two measurements of a worker."""
_BUSY = 90.0
"""Per cent of one processor from which on an idle plugin is reported."""
_BATCH = 10
"""Workers measured in one turn of the loop: each takes about 100 µs."""


@dataclass(slots=True)
class MonitoredWorker:
    """One worker.

    `memory`, `descriptors` and `cpu_seconds` are the limits of the whole process. `idle` tells whether no call is under
    way. `exceeded` is called with the name of a limit in a grant, the measured value, and the limit's value.
    """

    name: str
    process: psutil.Process
    memory: int
    descriptors: int
    cpu_seconds: float
    idle: Callable[[], bool]
    exceeded: Callable[[str, float, float], None]
    busy_samples: int = 0
    """Consecutive samples in which it was busy without a call under way."""


class ResourceMonitor:
    """Monitors workers from start to end, in one task for all."""

    def __init__(self) -> None:
        self._workers: dict[int, MonitoredWorker] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, worker: MonitoredWorker) -> None:
        self._workers[worker.process.pid] = worker
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="nyx:monitor")

    def remove(self, pid: int) -> None:
        self._workers.pop(pid, None)

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self) -> None:
        while self._workers:
            await asyncio.sleep(PERIOD)
            for number, worker in enumerate(tuple(self._workers.values())):
                if self._workers.get(worker.process.pid) is worker:
                    check(worker)
                if number % _BATCH == _BATCH - 1:
                    await asyncio.sleep(0)


def check(worker: MonitoredWorker) -> None:
    """Measures a worker and reports what exceeds its limits. Skips one that has ended."""
    process = worker.process
    try:
        with process.oneshot():
            usage, descriptors, cpu_percent = _usage(process), process.num_fds(), process.cpu_percent()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return
    for name, used, limit in (
        ("memory", usage.memory, worker.memory),
        ("open_files", descriptors, worker.descriptors),
        ("cpu_time", usage.cpu_seconds, worker.cpu_seconds),
    ):
        if used > limit:
            worker.exceeded(name, used, limit)
            return
    worker.busy_samples = worker.busy_samples + 1 if cpu_percent >= _BUSY and worker.idle() else 0
    if worker.busy_samples == 1:
        _log.warning("plugin %s keeps a processor busy (%.0f %%), and no call is under way", worker.name, cpu_percent)


def measure(pid: int) -> ProcessUsage | None:
    """Measures a process, or returns `None` if it has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return _usage(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _usage(process: psutil.Process) -> ProcessUsage:
    times = process.cpu_times()
    return ProcessUsage(process.memory_info().rss, times.user + times.system)
