"""Which processors the workers of a host run on, so that they can be kept off the one that the host has.

Linux often wakes a worker on the very processor of the host that wrote to it, and the host then waits behind it, though
another processor may be idle. Source: sched_setaffinity(2).
"""

import errno
import os
from collections.abc import Collection

_MOST = 8192
"""Processors of a Linux machine at most (NR_CPUS)."""


def placement(cpus: Collection[int] | None) -> frozenset[int] | None:
    """Returns the numbers of `cpus`; `None` for all that the system gives.

    Raises:
        ValueError: they are no numbers of processors, or there is no choice on this system.
    """
    if cpus is None:
        return None
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("worker_cpus: this system does not let a process choose its processors")
    if not cpus or not all(0 <= cpu < _MOST for cpu in cpus):
        raise ValueError("worker_cpus: one number of a processor or more, from 0 on")
    return frozenset(cpus)


def place(pid: int, cpus: frozenset[int]) -> None:
    """Has a process, and what it forks from then on, run on `cpus`. It must not have forked or started a thread yet.

    Raises:
        OSError: the system does not give it all of them.
    """
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(pid, cpus)
        except OSError as error:
            raise OSError(error.errno, _refusal(cpus, error.strerror or "refused")) from error
        if missing := cpus - os.sched_getaffinity(pid):
            raise OSError(errno.EINVAL, _refusal(cpus, f"there is no {sorted(missing)} for it"))


def _refusal(cpus: frozenset[int], reason: str) -> str:
    return f"worker_cpus {sorted(cpus)}: {reason}"
