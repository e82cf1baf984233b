"""What workers make their host do, in small pieces: one in each turn of the event loop, first come first served.

However many workers flood, and however fast, between two pieces the loop does everything else that is due. One for all
workers of a host. Knows no worker and no frame.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class FairScheduler:
    """Deals out turns of the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._taken = False

    def next(self, piece: Callable[[], None]) -> None:
        """Calls `piece` now if nobody has had this turn of the loop, or else in a turn of its own.

        A piece that has more to do asks for another turn. One that nobody wants any more must see that itself.
        """
        if self._taken:
            self._waiting.append(piece)
            return
        self._taken = True
        self._loop.call_soon(self._turn)
        piece()

    def _turn(self) -> None:
        if not self._waiting:
            self._taken = False
            return
        self._loop.call_soon(self._turn)
        self._waiting.popleft()()
