"""What is left of a lease's budgets: counts, bytes, and seconds of use. Used on the event loop's thread."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Literal, TypeAlias

from nyx_stream.attribution import as_host

Budget: TypeAlias = Literal["requests", "bytes_in", "bytes_out", "opens"]
"""What can be counted and limited."""

Tally: TypeAlias = dict[Budget, int]
"""What was used, with and without a limit."""


def new_tally() -> Tally:
    """Returns a tally of zeros."""
    return {"requests": 0, "bytes_in": 0, "bytes_out": 0, "opens": 0}


class BudgetCounter:
    """Counts budgets down. A budget that is not set has no limit."""

    __slots__ = ("_initial", "_left", "_reported")

    def __init__(self) -> None:
        self._initial: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._reported: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._initial)

    @property
    def left(self) -> dict[str, int]:
        """What is left of each budget."""
        return dict(self._left)

    def set(self, name: str, amount: int | None) -> None:
        """Sets a budget to its full amount, or removes it with `None`."""
        self._reported.discard(name)
        if amount is None:
            self._initial.pop(name, None)
            self._left.pop(name, None)
        else:
            self._initial[name] = self._left[name] = amount

    def initial(self, name: str) -> int:
        """Returns the full amount of a budget that is set."""
        return self._initial[name]

    def lacks(self, name: str, amount: int) -> bool:
        """Tells whether `amount` is more than is left of a budget."""
        return name in self._left and amount > self._left[name]

    def exhaust(self, name: str) -> bool:
        """Leaves nothing of a budget; returns whether this is the first time since it was set."""
        self._left[name] = 0
        first = name not in self._reported
        self._reported.add(name)
        return first

    def take(self, name: str, amount: int) -> None:
        """Takes `amount` from a budget."""
        if name in self._left:
            self._left[name] -= amount


class UseTimer:
    """Runs while something is in use, and calls `expired` after `seconds` of use in total."""

    __slots__ = ("_expired", "_left", "_since", "_timer")

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._left = seconds
        self._expired = expired
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> float:
        """Seconds of use that are left."""
        running = 0.0 if self._since is None else monotonic() - self._since
        return max(self._left - running, 0.0)

    def start(self) -> None:
        """Starts to count."""
        self._since = monotonic()
        self._timer = call_later(self._left, self._expired)

    def stop(self) -> None:
        """Stops counting. Does nothing if it has stopped already."""
        self._left, self._since = self.left, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def call_later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Has the running loop call `callback` as the host's own code, also when plugin code is running now."""
    with as_host():
        return asyncio.get_running_loop().call_later(seconds, callback)
