"""Bounds around the calls to one plugin: how many at once, how many wait, how long each may take.

Knows nothing of methods or isolation: a call here is whatever a task of the host does inside a `CallScope`.
"""

import asyncio
from asyncio import current_task
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Self

from nyx_stream.errors import PluginBusy, PluginCallError, PluginError, PluginTimeout

RECENT = 512
"""Calls whose durations are kept."""

_AGAIN = 1.0
"""Seconds after which a call that ignored its cancellation is cancelled again."""


class CallLimiter:
    """Lets `concurrency` calls in, first come first served, while at most `queue` wait."""

    __slots__ = ("_concurrency", "_queue", "_waiting", "active", "plugin")

    def __init__(self, plugin: str, concurrency: int, queue: int) -> None:
        self.plugin = plugin
        self.active = 0
        self._concurrency = concurrency
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls that wait to be let in."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Enters if there is room now."""
        if self._waiting or self.active >= self._concurrency:
            return False
        self.active += 1
        return True

    async def enter(self) -> None:
        """Enters, or waits for room. Raises `PluginBusy` at once if too many wait already."""
        if self.try_enter():
            return
        if len(self._waiting) >= self._queue:
            raise PluginBusy(self.plugin, f"{self.active} calls run and {len(self._waiting)} wait; nothing was started")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the turn came in the same moment: it goes to the next
                self.leave()
            else:
                with suppress(ValueError):  # `_admit` may have passed over it
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Gives the room of one call back."""
        self.active -= 1
        if self._waiting:
            self._admit()

    def resize(self, concurrency: int, queue: int) -> None:
        """Changes the bounds. What is in stays in."""
        self._concurrency = concurrency
        self._queue = queue
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.active < self._concurrency:
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)


class DeadlineTimer:
    """The calls of one plugin that are under way, and the one timer that bounds them all.

    A timer per call would cost more than the rest of a call: this one is armed for the earliest deadline only.
    """

    __slots__ = ("_timer", "armed", "departure", "loop", "open", "plugin")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.open: dict[CallScope, None] = {}
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.armed = inf
        """When the timer fires."""
        self.departure: asyncio.Future[None] | None = None
        """Done when the next call leaves, if somebody waits for that."""

    def arm(self, deadline: float) -> None:
        """Makes sure that the timer fires at `deadline` or before."""
        if self.armed <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.armed = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - monotonic()), self._fire)

    async def end_all(self, error: Callable[[], PluginError], cause: BaseException | None, patience: float) -> None:
        """Ends every call and waits up to `patience` seconds until all have left; `open` has those that have not."""
        for scope in tuple(self.open):
            scope.end(error(), cause)
        until = monotonic() + patience
        while self.open and (left := until - monotonic()) > 0:
            await asyncio.wait((self.next_departure(),), timeout=left)

    def next_departure(self) -> "asyncio.Future[None]":
        """Returns what is done when the next call leaves."""
        if self.departure is None:
            self.departure = self.loop.create_future()
        return self.departure

    def close(self) -> None:
        """Disarms the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.armed = inf

    def left(self) -> None:
        """A call has left, for which somebody waits."""
        departure, self.departure = self.departure, None
        if departure is not None:
            departure.set_result(None)

    def _fire(self) -> None:
        self._timer = None
        self.armed = inf
        now = monotonic()
        for scope in tuple(self.open):
            if scope.deadline <= now:
                scope.expire()
        if self.open:
            self.arm(min(scope.deadline for scope in self.open))


class CallScope:
    """One call, or one step of a stream, in the task of its caller: ended by its timeout or by `end`.

    It is open from the moment it is made until `leave`, or as a context manager.

    Works as `asyncio.timeout` does, and so inside task groups and cancel scopes: the task is cancelled, and the
    cancellation that was ours becomes a `PluginError` where the scope is left.
    """

    __slots__ = ("_before", "_cancels", "_error", "_scopes", "begun", "deadline", "method", "task", "timeout")

    def __init__(self, scopes: DeadlineTimer, method: str, timeout: float) -> None:
        task = current_task(scopes.loop)  # without it, CPython 3.11 asks the kernel for the process id
        if task is None:
            raise RuntimeError("a plugin can be called from a task only")
        self.task: asyncio.Task[Any] = task
        self.method = method
        self.timeout = timeout
        self._scopes = scopes
        self._error: PluginError | None = None
        self._cancels = 0
        self._before = before = task.cancelling()
        if before and getattr(task, "_must_cancel", False):
            self._before = before - 1  # a cancellation that is still to be delivered belongs to this call
        self.begun = begun = monotonic()
        self.deadline: float = begun + timeout
        scopes.open[self] = None
        if scopes.armed > self.deadline:
            scopes.arm(self.deadline)

    def __enter__(self) -> Self:
        return self

    def end(self, error: PluginError, cause: BaseException | None = None) -> None:
        """Cancels the call; whoever made it gets `error`."""
        if self._error is None:
            error.__cause__ = cause
            self._error = error
        self._cancels += 1
        self.task.cancel()
        # A method that swallows its cancellation is cancelled again, and again.
        self.deadline = monotonic() + _AGAIN
        self._scopes.arm(self.deadline)

    def expire(self) -> None:
        """The deadline has come."""
        self.end(PluginTimeout(self._scopes.plugin, f"{self.method} took longer than {self.timeout:g} s"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = self.leave(error)
        if outcome is not None and outcome is not error:
            raise outcome

    def leave(self, error: BaseException | None = None) -> BaseException | None:
        """Closes the scope. Takes what the call raised and returns what its caller gets; `None` for a result."""
        scopes = self._scopes
        del scopes.open[self]
        if scopes.departure is not None:
            scopes.left()
        if error is None and self._error is None:
            return None
        for _ in range(self._cancels):
            self.task.uncancel()
        if isinstance(error, KeyboardInterrupt) or self.task.cancelling() > self._before:
            return error
        outcome = self._error
        if outcome is None and isinstance(error, asyncio.CancelledError):
            # Nobody cancelled this task: the plugin raised it, and must not end the host's task with it.
            outcome = PluginCallError(self._scopes.plugin, f"{self.method} raised CancelledError")
        if outcome is None:
            return error
        outcome.__cause__ = outcome.__cause__ or error
        return outcome


@dataclass(slots=True)
class CallCount:
    """What happened to the calls of one plugin since it was loaded; a reload goes on counting."""

    calls: int = 0
    failed: int = 0
    timeouts: int = 0
    refused: int = 0
    """Turned away because the queue was full."""
    timed: int = 0
    """Calls that ended, however; neither streams nor those that were refused."""
    seconds: float = 0.0
    """Spent in those, waiting for room included."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    """How long each of the last of them took."""

    def fault(self, error: BaseException, begun: float | None = None) -> None:
        """Counts a call, begun at that moment, that raised; or a stream, without `begun`."""
        if isinstance(error, PluginBusy):
            self.refused += 1
            return
        self.failed += 1
        self.timeouts += isinstance(error, PluginTimeout)
        if begun is not None:
            self.timed += 1
            self.seconds += (took := monotonic() - begun)
            self.recent.append(took)
