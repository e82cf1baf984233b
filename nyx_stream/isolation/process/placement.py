"""Which processors the workers of a host run on, so that they can be kept off the one that the host has.

Linux often wakes a worker on the very processor of the host that wrote to it, and the host then waits behind it, though
another processor may be idle. Source: sched_setaffinity(2).
"""

import errno
import os
import sys
from collections.abc import Iterable

THERE_IS_A_CHOICE = sys.platform == "linux"

_MOST = 8192
"""Processors of a Linux machine at most (NR_CPUS)."""


def placement(cpus: Iterable[int] | None) -> frozenset[int] | None:
    """Returns the numbers of `cpus`; `None` for all that the system gives.

    Raises:
        ValueError: they are no numbers of processors, or there is no choice on this system.
    """
    if cpus is None:
        return None
    if not THERE_IS_A_CHOICE:
        raise ValueError("worker_cpus: this system does not let a process choose its processors")
    numbers = frozenset(cpus)
    if not numbers or not all(type(cpu) is int and 0 <= cpu < _MOST for cpu in numbers):
        raise ValueError("worker_cpus: one number of a processor or more, from 0 on")
    return numbers


def place(pid: int, cpus: frozenset[int]) -> None:
    """Has a process, and what it forks from then on, run on `cpus`. It must not have forked or started a thread yet.

    Raises:
        OSError: the system does not give it all of them; or the process is gone.
    """
    if sys.platform == "linux":
        try:
            os.sched_setaffinity(pid, cpus)
            given = os.sched_getaffinity(pid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            given = set()
        if missing := cpus - given:
            text = f"worker_cpus {sorted(cpus)}: the system gives no {sorted(missing)} to a worker"
            raise OSError(errno.EINVAL, text)
