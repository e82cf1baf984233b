"""How many threads this process has, as the kernel counts them. Some layers confine the calling thread only."""

from __future__ import annotations

import os


def thread_count() -> int:
    """Threads of this process, those that Python did not start included; raises `OSError` without /proc."""
    return len(os.listdir("/proc/self/task"))
