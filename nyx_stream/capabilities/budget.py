"""What is left of a lease's budgets: counts, bytes, and seconds of use. Knows neither leases nor what is counted.

Used on the event loop's thread.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Literal, TypeAlias

from nyx_stream.attribution import as_host

Budget: TypeAlias = Literal["requests", "bytes_in", "bytes_out", "opens"]
"""What can be counted, and limited."""

Tally: TypeAlias = dict[Budget, int]
"""What was spent, whether there was a limit or not."""


def new_tally() -> Tally:
    """Returns a tally of nothing."""
    return {"requests": 0, "bytes_in": 0, "bytes_out": 0, "opens": 0}


class BudgetCounter:
    """Counts budgets down. A budget that is not set is not counted."""

    __slots__ = ("_left", "_set", "_told")

    def __init__(self) -> None:
        self._set: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._set)

    @property
    def left(self) -> dict[str, int]:
        """What is left of each budget."""
        return dict(self._left)

    def budget(self, name: str, amount: int | None) -> None:
        """Sets a budget anew, or lifts it with `None`."""
        self._told.discard(name)
        if amount is None:
            self._set.pop(name, None)
            self._left.pop(name, None)
        else:
            self._set[name] = self._left[name] = amount

    def whole(self, name: str) -> int:
        """Returns a budget that is set, as it was in the beginning."""
        return self._set[name]

    def lacks(self, name: str, amount: int) -> bool:
        """Tells whether `amount` is more than is left of a budget."""
        return name in self._left and amount > self._left[name]

    def use_up(self, name: str) -> bool:
        """Leaves nothing of a budget that lacks something; returns whether that is the first time."""
        self._left[name] = 0
        first = name not in self._told
        self._told.add(name)
        return first

    def take(self, name: str, amount: int) -> None:
        """Takes `amount` from a budget."""
        if name in self._left:
            self._left[name] -= amount


class Stopwatch:
    """Runs while something is in use, and calls `over` when that has been `seconds`, all together."""

    __slots__ = ("_left", "_over", "_since", "_timer")

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        self._left = seconds
        self._over = over
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        running = 0.0 if self._since is None else monotonic() - self._since
        return max(self._left - running, 0.0)

    def start(self) -> None:
        """Use begins."""
        self._since = monotonic()
        self._timer = later(self._left, self._over)

    def stop(self) -> None:
        """Use ends. Harmless if it has ended already."""
        self._left, self._since = self.left, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def later(seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
    """Has the running loop call `act`, as the host, whoever asks for it."""
    with as_host():
        return asyncio.get_running_loop().call_later(seconds, act)
