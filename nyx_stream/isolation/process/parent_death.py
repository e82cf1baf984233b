"""A process with one life to live: it does not outlive its parent, and nothing runs in it after that life.

The first by prctl(2) PR_SET_PDEATHSIG on Linux; elsewhere the closed socket must do. Knows nothing of what the process
is for.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

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


def live(life: Callable[[], int]) -> NoReturn:
    """Calls `life` and ends the process with the status that it returns, or with 1 and a traceback."""
    status = 1
    try:
        status = life()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
