"""Shares the host's event loop among its workers: one step of work per turn of the loop, first come, first served.

Theory of operation
    Some frames make the host work as soon as they arrive (a request, a log record), and so does a printed line or a
    large result. A worker can send these faster than the host can process them. If each were processed where it is
    read, one read would keep the loop busy for a whole buffer's worth, and every other worker and caller would wait.

    So all workers of a host share one scheduler. The first step in a turn of the loop runs at once; every other step
    waits in a queue, and each turn runs one of it. Between two steps the loop does its other work. A step that
    has more to do queues itself again, behind the steps of the other workers. The cost of a flood is therefore one
    step per turn, however many workers flood, and a worker that isn't flooding waits for at most one step of each
    that is. Readers (`channel`, `output`) stop reading while a step of theirs waits, so backpressure reaches the
    worker through the kernel's socket buffer.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class FairScheduler:
    """Runs steps on the running event loop. Shared by all workers of a host."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps: deque[Callable[[], None]] = deque()
        self._taken = False

    def acquire(self) -> bool:
        """Takes this turn of the loop and returns whether it was still free. If so, the caller may run one step now."""
        if self._taken:
            return False
        self._taken = True
        self._loop.call_soon(self._turn)
        return True

    def run(self, step: Callable[[], None]) -> None:
        """Calls `step` now if this turn of the loop is still free, otherwise in a later turn.

        A queued step can't be withdrawn: it must check whether it is still needed.
        """
        if self.acquire():
            step()
        else:
            self._steps.append(step)

    def _turn(self) -> None:
        if not self._steps:
            self._taken = False
            return
        self._loop.call_soon(self._turn)
        self._steps.popleft()()
