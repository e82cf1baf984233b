"""Which processors the workers of a host run on.

Linux often wakes a worker on the processor of the host that wrote to it, and the host then waits behind it although
another processor is idle. Workers on other processors than their host's avoid that. Source: sched_setaffinity(2).
"""

import errno
import os
import sys
from collections.abc import Iterable

CAN_SET_AFFINITY = sys.platform == "linux"
_MAX_CPUS = 8192
"""Processors of a Linux machine at most (NR_CPUS)."""


def parse_cpus(cpus: Iterable[int] | None) -> frozenset[int] | None:
    """Returns the processor numbers `cpus`, or `None` for all that the system offers.

    Raises:
        ValueError: they aren't numbers of processors, or this system can't choose.
    """
    if cpus is None:
        return None
    if not CAN_SET_AFFINITY:
        raise ValueError("worker_cpus: this system does not let a process choose its processors")
    numbers = frozenset(cpus)
    if not numbers or not all(type(cpu) is int and 0 <= cpu < _MAX_CPUS for cpu in numbers):
        raise ValueError("worker_cpus: expected one or more processor numbers, from 0 on")
    return numbers


def set_affinity(pid: int, cpus: frozenset[int]) -> None:
    """Restricts a process and its later children to `cpus`: sched_setaffinity(2). It must have only one thread.

    Raises:
        OSError: the system doesn't offer all of them, or the process is gone.
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
            message = f"worker_cpus {sorted(cpus)}: the system does not offer {sorted(missing)} to a worker"
            raise OSError(errno.EINVAL, message)
