"""Limits the calls to one plugin: how many run at once, how many are queued, and how long each may take.

Theory of operation: a call runs in its caller's task, between the creation of a `CallScope` and its `leave`. A timer
per call would cost more than the rest of a call, so all scopes share one `DeadlineTimer`, which is armed for the
earliest deadline only and is not moved when a call ends early. A scope ends its call by cancelling the task, as
`asyncio.timeout` does, and turns its own cancellation into a `PluginError` when the scope is left.
"""

import asyncio
from asyncio import current_task
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Self

from nyx_stream.errors import PluginBusy, PluginCallError, PluginError, PluginTimeout

_RECANCEL_SECONDS = 1.0
"""Seconds after which a call that ignored its cancellation is cancelled again."""


class CallLimiter:
    """Runs up to `concurrency` calls at once, and queues up to `queue` more, first in, first out."""

    __slots__ = ("_concurrency", "_queue_size", "_waiters", "active", "plugin")

    def __init__(self, plugin: str, concurrency: int, queue: int) -> None:
        self.plugin = plugin
        self.active = 0
        self._concurrency = concurrency
        self._queue_size = queue
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    def try_enter(self) -> bool:
        """Enters if a call can run now."""
        if self._waiters or self.active >= self._concurrency:
            return False
        self.active += 1
        return True

    async def enter(self) -> None:
        """Enters, or waits in the queue. Raises `PluginBusy` at once if the queue is full."""
        if self.try_enter():
            return
        if len(self._waiters) >= self._queue_size:
            raise PluginBusy(self.plugin, f"{self.active} calls run and {len(self._waiters)} wait; nothing was started")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # admitted and cancelled at once: the next one takes over
                self.leave()
            else:
                with suppress(ValueError):  # `_admit` may have removed it
                    self._waiters.remove(waiter)
            raise

    def leave(self) -> None:
        """Leaves, and admits the next call of the queue."""
        self.active -= 1
        if self._waiters:
            self._admit()

    def resize(self, concurrency: int, queue: int) -> None:
        """Changes the limits. Calls that run continue."""
        self._concurrency = concurrency
        self._queue_size = queue
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self.active < self._concurrency:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.active += 1
                waiter.set_result(None)


class DeadlineTimer:
    """The open call scopes of one plugin, and the one timer for all their deadlines."""

    __slots__ = ("_timer", "fires_at", "loop", "next_exit", "plugin", "scopes")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.scopes: dict[CallScope, None] = {}
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.fires_at = inf
        """When the timer fires, by `time.monotonic`; `inf` while it isn't armed."""
        self.next_exit: asyncio.Future[None] | None = None
        """Done when the next scope is left; `None` while no task waits for that."""

    def arm(self, deadline: float) -> None:
        """Makes the timer fire at `deadline` or earlier."""
        if self.fires_at <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.fires_at = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - monotonic()), self._fire)

    async def end_all(self, error: Callable[[], PluginError], cause: BaseException | None, patience: float) -> None:
        """Ends every call and waits up to `patience` seconds. `scopes` then has those that haven't been left."""
        for scope in tuple(self.scopes):
            scope.end(error(), cause)
        until = monotonic() + patience
        while self.scopes and (left := until - monotonic()) > 0:
            await asyncio.wait((self.exit_future(),), timeout=left)

    def exit_future(self) -> "asyncio.Future[None]":
        """Returns a future that is done when the next scope is left."""
        if self.next_exit is None:
            self.next_exit = self.loop.create_future()
        return self.next_exit

    def close(self) -> None:
        """Disarms the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.fires_at = inf

    def notify_exit(self) -> None:
        """Completes the future of `exit_future`."""
        future, self.next_exit = self.next_exit, None
        if future is not None:
            future.set_result(None)

    def _fire(self) -> None:
        self._timer = None
        self.fires_at = inf
        now = monotonic()
        for scope in tuple(self.scopes):
            if scope.deadline <= now:
                scope.expire()
        if self.scopes:
            self.arm(min(scope.deadline for scope in self.scopes))


class CallScope:
    """One call, or one step of a stream, in its caller's task. Its timeout or `end` ends it.

    It is open from its creation until `leave`; as a context manager, until the end of the block. It works inside task
    groups and cancel scopes, as `asyncio.timeout` does.
    """

    __slots__ = ("_before", "_cancels", "_error", "_timer", "deadline", "method", "started", "task", "timeout")

    def __init__(self, timer: DeadlineTimer, method: str, timeout: float) -> None:
        task = current_task(timer.loop)  # without it, CPython 3.11 asks the kernel for the process id
        if task is None:
            raise RuntimeError("a plugin can only be called from a task")
        self.task: asyncio.Task[Any] = task
        self.method = method
        self.timeout = timeout
        self._timer = timer
        self._error: PluginError | None = None
        self._cancels = 0
        self._before = before = task.cancelling()
        if before and getattr(task, "_must_cancel", False):
            self._before = before - 1  # an undelivered cancellation will interrupt this call
        self.started = started = monotonic()
        self.deadline: float = started + timeout
        timer.scopes[self] = None
        if timer.fires_at > self.deadline:
            timer.arm(self.deadline)

    def __enter__(self) -> Self:
        return self

    def end(self, error: PluginError, cause: BaseException | None = None) -> None:
        """Cancels the call; its caller gets `error`."""
        if self._error is None:
            error.__cause__ = cause
            self._error = error
        self._cancels += 1
        self.task.cancel()
        # A method that suppresses its cancellation is cancelled again until it ends.
        self.deadline = monotonic() + _RECANCEL_SECONDS
        self._timer.arm(self.deadline)

    def expire(self) -> None:
        """Ends the call because its deadline has passed."""
        self.end(PluginTimeout(self._timer.plugin, f"{self.method} took longer than {self.timeout:g} s"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = self.leave(error)
        if outcome is not None and outcome is not error:
            raise outcome

    def leave(self, error: BaseException | None = None) -> BaseException | None:
        """Closes the scope. Takes the error of the call and returns the error for its caller; `None` for a result."""
        timer = self._timer
        del timer.scopes[self]
        if timer.next_exit is not None:
            timer.notify_exit()
        if error is None and self._error is None:
            return None
        for _ in range(self._cancels):
            self.task.uncancel()
        if isinstance(error, KeyboardInterrupt) or self.task.cancelling() > self._before:
            return error
        outcome = self._error
        if outcome is None and isinstance(error, asyncio.CancelledError):
            # The plugin raised it without a cancellation of this task: it must not end the host's task.
            outcome = PluginCallError(self._timer.plugin, f"{self.method} raised CancelledError")
        if outcome is None:
            return error
        outcome.__cause__ = outcome.__cause__ or error
        return outcome
