"""How much of a processor a worker gets while others want one: less than its host. Knows no plugin.

Where processors are short, a worker that spins would otherwise have as much of them as the host, which then is late for
everything. It is a courtesy and no wall: nothing is refused where the system does not take it.
"""

import os
import sys
from contextlib import suppress

NICE = 5
"""Nice value of a worker: a third of the weight of a process with 0 (sched(7))."""


def step_back() -> None:
    """Makes this process give way, in a session of its own; what comes after in it cannot take that back.

    Linux shares processors out among sessions first, where autogroups are on, and has a nice value for each
    (sched(7)). Without privileges it changes one only now and then.
    """
    if sys.platform == "win32":
        return
    os.nice(max(0, NICE - os.getpriority(os.PRIO_PROCESS, 0)))
    if sys.platform != "linux":
        return
    if os.getsid(0) != os.getpid():
        os.setsid()  # the group is the session's
    with suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:
        group.write(f"{NICE}")
