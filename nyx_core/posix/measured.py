"""What this process uses, for placing its limits, where psutil is the one to ask: macOS and the BSDs."""

from __future__ import annotations

import os

import psutil

from nyx_core.posix.rlimits import Usage


def usage() -> Usage:
    """Measure; whatever psutil may not tell is `None`."""
    process = psutil.Process()
    try:
        mapped: int | None = process.memory_info().vms
    except psutil.Error:
        mapped = None
    # RLIMIT_NPROC counts processes, never threads, and does not bind root (getrlimit(2) of both).
    if os.getuid() == 0:
        return Usage(mapped, None, None, "the kernel exempts root")
    return Usage(mapped, 1, _processes_of(os.getuid()))


def _processes_of(uid: int) -> int:
    count = 0
    for process in psutil.process_iter():
        try:
            count += process.uids().real == uid
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else
    return count
