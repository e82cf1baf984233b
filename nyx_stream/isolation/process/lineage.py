"""A process that does not outlive its parent. Linux, prctl(2) PR_SET_PDEATHSIG; elsewhere the closed socket must do.

Knows nothing of what the process is for.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Has this process signalled when `parent` ends; ends it at once if `parent` is gone already.

    The kernel looks at the thread that made this process, not at the process of that thread.

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform != "linux":
        return
    from nyx_core.linux.libc import prctl

    prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os._exit(1)
