"""Measures with psutil what this process uses, to choose its limits on macOS and the BSDs."""

from __future__ import annotations

import os

import psutil

from nyx_core.posix.rlimits import RlimitUsage


def psutil_usage() -> RlimitUsage:
    """The usage of this process; `None` for what psutil may not read."""
    try:
        mapped: int | None = psutil.Process().memory_info().vms
    except psutil.Error:
        mapped = None
    # RLIMIT_NPROC counts processes, not threads, and doesn't limit root (getrlimit(2) of both).
    uid, count = os.getuid(), 0
    if uid == 0:
        return RlimitUsage(mapped, None, None, "the kernel exempts root")
    for process in psutil.process_iter():
        try:
            count += process.uids().real == uid
        except psutil.Error:
            continue  # it has ended, or belongs to another user
    return RlimitUsage(mapped, 1, count)
