"""What this process uses on Linux, for placing its limits. Reads /proc and changes nothing."""

from __future__ import annotations

import os

from nyx_core.linux.threads import thread_count
from nyx_core.posix.rlimits import Usage

WHOLE_RANGE = ["0", "0", "4294967295"]


def usage() -> Usage:
    """Measure; whatever /proc does not tell is `None`."""
    exempt = _exempt()
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        mapped = None
    if exempt:
        return Usage(mapped, None, None, exempt)
    try:
        return Usage(mapped, thread_count(), _tasks_of(os.getuid()))
    except OSError:
        return Usage(mapped, None, None)


def _exempt() -> str:
    """The kernel does not hold uid 0 of the initial user namespace to RLIMIT_NPROC (kernel/fork.c)."""
    if os.getuid() != 0:
        return ""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            initial = uid_map.read().split() == WHOLE_RANGE
    except OSError:
        return ""
    return "the kernel exempts root" if initial else ""


def _tasks_of(uid: int) -> int:
    """Processes and threads of one user, as far as /proc shows them.

    The owner of /proc/PID is the effective user, and `task` has one link per thread beside its own two.
    """
    count = 0
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                if entry.stat().st_uid == uid:
                    count += os.stat(f"/proc/{entry.name}/task").st_nlink - 2
            except OSError:
                continue  # it ended meanwhile
    return count
