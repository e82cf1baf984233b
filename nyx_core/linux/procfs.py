"""What /proc says about this process. Files are read as bytes, because a text codec would have to be imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nyx_core.posix.rlimits import RlimitUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

ENV_START, ENV_END = 50, 51  # fields of /proc/self/stat, counted from 1; proc_pid_stat(5)
INITIAL_NAMESPACE = [b"0", b"0", b"4294967295"]  # /proc/self/uid_map of the initial user namespace


def open_descriptors() -> Iterable[int]:
    """Numbers in /proc/self/fd: what is open, and the listing itself; raises `OSError` without /proc."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def thread_count() -> int:
    """Threads of this process, including those not started by Python; raises `OSError` without /proc."""
    return len(os.listdir("/proc/self/task"))


def environment_block() -> tuple[int, int]:
    """The addresses between which execve(2) put the environment; (0, 0) if the kernel doesn't tell."""
    with open("/proc/self/stat", "rb") as stat:
        text = stat.read()
    # The second field is the program's name in parentheses, which may contain spaces and parentheses itself.
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[ENV_START - 3]), int(fields[ENV_END - 3])


def rlimit_usage() -> RlimitUsage:
    """What this process uses; `None` for what /proc doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            mapped = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        mapped = None
    if exempt := _processes_exempt():
        return RlimitUsage(mapped, None, None, exempt)
    try:
        return RlimitUsage(mapped, thread_count(), _tasks_of(os.getuid()))
    except OSError:
        return RlimitUsage(mapped, None, None)


def _processes_exempt() -> str:
    """The kernel exempts uid 0 of the initial user namespace from RLIMIT_NPROC (kernel/fork.c)."""
    if os.getuid() != 0:
        return ""
    try:
        with open("/proc/self/uid_map", "rb") as uid_map:
            initial = uid_map.read().split() == INITIAL_NAMESPACE
    except OSError:
        return ""
    return "the kernel exempts root" if initial else ""


def _tasks_of(uid: int) -> int:
    """Processes and threads of one user, as far as /proc shows them.

    The owner of /proc/PID is the effective user, and `task` has one link per thread besides its own two.
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
                continue  # it has ended
    return count
