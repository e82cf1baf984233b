"""The lease of a capability: how the host limits it and takes it back.

Theory of operation
-------------------
Each capability of a plugin is used under a lease. The lease doesn't know the capability. The capability asks it:

- `check`, before each operation, raises `Revoked` after the end of the lease.
- `spend` takes from a budget (requests, bytes, files to open) and raises `Spent` for what doesn't fit any more.
- `hold` registers how to end something that outlives an operation: an open file, a response that is being read.

A lease ends once, for one of three reasons: the host revokes it, its time (`ttl`) is over, or its seconds of use are
used up. The end runs every registered callback at once, so a revocation doesn't wait for the plugin. A used-up budget
doesn't end the lease: it refuses until the host sets it anew.

Leases form a tree. The host keeps one lease for each capability as long as the grant lasts. Each run of the plugin
uses a child of it, and each narrowed capability a child of that. The end of a lease ends its children with the same
reason, and what is spent through a child is spent in every lease above it.

The time of the end is compared with the clock at each operation, so a plugin that blocks the event loop, and thereby
the timer, gains nothing. A lease without terms costs an operation two attribute reads: `_deadline`, `_has_budget` and
`_can_end` are computed when terms are set, here and in the children.

All of it is used on the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from math import inf
from time import monotonic
from typing import Literal, TypeAlias
from weakref import WeakSet

from nyx_stream.attribution import as_host
from nyx_stream.errors import Revoked
from nyx_stream.policy.limits import Term, print_term

Budget: TypeAlias = Literal["requests", "bytes_in", "bytes_out", "opens"]
"""What can be counted and limited."""

Tally: TypeAlias = dict[Budget, int]
"""What was spent, with and without a limit."""

LeaseEvent: TypeAlias = Literal["expire", "spend"]
"""What happens to a lease without the host: its time is over, or a budget is used up."""


class Spent(Exception):
    """An operation doesn't fit into a budget any more. The capability turns it into its own `Revoked`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def new_tally() -> Tally:
    return {"requests": 0, "bytes_in": 0, "bytes_out": 0, "opens": 0}


def call_later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Has the running loop call `callback` as the host's own code, also when plugin code is running now."""
    with as_host():
        return asyncio.get_running_loop().call_later(seconds, callback)


@dataclass(slots=True)
class _Counter:
    """A budget that counts down from `amount`."""

    amount: int
    left: int
    reported: bool = False
    """Whether the host was notified that it is used up."""


class _UseTimer:
    """Runs while something is in use, and calls `expired` after `seconds` of use in total."""

    __slots__ = ("_expired", "_left", "_since", "_timer")

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._left = seconds
        self._expired = expired
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> float:
        running = 0.0 if self._since is None else monotonic() - self._since
        return max(self._left - running, 0.0)

    def start(self) -> None:
        self._since = monotonic()
        self._timer = call_later(self._left, self._expired)

    def stop(self) -> None:
        """Stops counting. Does nothing if it has stopped already."""
        self._left, self._since = self.left, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The state of a lease.

    Attributes:
        reason: why it has ended, or `None` if it hasn't.
        left: what is left of each term that is set, by name.
    """

    reason: str | None
    left: Mapping[str, Term]


class Lease:
    """Lets the host limit and end one capability of one plugin; see the theory of operation above.

    Args:
        on_event: called with the event and its reason when the lease expires or a budget is used up.
        tally: counts what is spent here and through the children, with and without a budget.
    """

    __slots__ = (
        "__weakref__", "_budgets", "_can_end", "_children", "_deadline", "_expiry_reason", "_has_budget", "_holds",
        "_numbers", "_on_event", "_own_deadline", "_own_expiry_reason", "_parent", "_reason", "_tally", "_timer",
        "_use_timer", "_uses", "capability", "plugin",
    )  # fmt: skip

    def __init__(
        self,
        plugin: str | None,
        capability: str,
        *,
        on_event: Callable[[LeaseEvent, str], None] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.plugin = plugin
        self.capability = capability
        self._on_event = on_event
        self._tally = new_tally() if tally is None else tally
        self._parent: Lease | None = None
        self._children: WeakSet[Lease] = WeakSet()
        self._reason: str | None = None
        self._holds: dict[int, tuple[Callable[[], object], bool]] = {}
        self._numbers = count()
        self._budgets: dict[str, _Counter] = {}
        self._use_timer: _UseTimer | None = None
        self._uses = 0
        self._own_deadline, self._own_expiry_reason = inf, ""
        # Computed from the terms of this lease and of those above it.
        self._deadline, self._expiry_reason = inf, ""
        self._timer: asyncio.TimerHandle | None = None
        self._has_budget = False
        self._can_end = False
        """Whether it has ended or has a deadline: the only thing that a lease without terms has to look at."""

    @property
    def ended(self) -> bool:
        """Whether the lease was revoked or its time is over, by the clock."""
        return self._can_end and (self._reason is not None or monotonic() >= self._deadline)

    @property
    def reason(self) -> str:
        """Why the lease has ended, or will end at its deadline."""
        return self._reason if self._reason is not None else self._expiry_reason

    def status(self) -> LeaseStatus:
        left: dict[str, Term] = {name: counter.left for name, counter in self._budgets.items()}
        if self._own_deadline < inf:
            left["ttl"] = max(self._own_deadline - monotonic(), 0.0)
        if self._use_timer is not None:
            left["seconds"] = self._use_timer.left
        return LeaseStatus(self.reason if self.ended else None, left)

    def check(self, action: str = "use", target: str = "") -> None:
        """Raises `Revoked` once the lease has ended."""
        if self._can_end and self.ended:
            raise self.error(action, target)

    def error(self, action: str = "use", target: str = "", reason: str | None = None) -> Revoked:
        """Returns the error for an operation after the end of the lease, or beyond a budget."""
        why = self.reason if reason is None else reason
        return Revoked(
            plugin=self.plugin, capability=self.capability, action=action, target=target, rule=None, reason=why
        )

    def hold(self, end: Callable[[], object], *, busy: bool = False) -> Callable[[], None]:
        """Registers `end`, to be called when the lease ends; returns a function that removes it again.

        `end` must neither block nor raise. With `busy`, the time until it is removed counts as use. Raises `Revoked` if
        the lease has already ended, so that nothing is registered that would never be ended.
        """
        if self._can_end and self.ended:
            raise self.error()
        number = next(self._numbers)
        self._holds[number] = end, busy
        if busy:
            self._count_use(1)

        def release() -> None:
            if self._holds.pop(number, None) is not None and busy:
                self._count_use(-1)

        return release

    def spend(self, budget: Budget, amount: int = 1) -> None:
        """Takes `amount` from a budget, here and above. If it doesn't fit, uses the budget up and raises `Spent`."""
        if self._has_budget:
            self._take(budget, amount)
        self._tally[budget] += amount

    def limit(self, terms: Mapping[str, Term | None]) -> None:
        """Sets terms anew, from now on, by name, as `policy.limits.parse_terms` returns them; `None` removes one.

        Terms that are not named stay as they are. Raises `Revoked` if the lease has ended: it can't be renewed.
        """
        self.check("lease")
        for name, value in terms.items():
            if name == "ttl":
                self._own_deadline = inf if value is None else monotonic() + value
                self._own_expiry_reason = "" if value is None else f"expired after {print_term(name, value)}"
            elif name == "seconds":
                self._limit_use(value)
            elif value is None:
                self._budgets.pop(name, None)
            else:
                self._budgets[name] = _Counter(int(value), int(value))
        self._apply_terms()

    def child(self, terms: Mapping[str, Term | None] | None = None) -> "Lease":
        """Returns a lease below this one, with its own terms. It has ended already if this one has."""
        child = Lease(self.plugin, self.capability, tally=self._tally)
        child._parent = self
        if self.ended:
            child._end(self.reason)
            return child
        self._children.add(child)
        child.limit(terms or {})
        return child

    def revoke(self, reason: str) -> None:
        """Ends the lease and everything that is held through it. Further calls change nothing."""
        self._end(f"revoked: {reason}")

    def _take(self, budget: Budget, amount: int) -> None:
        for lease in self._with_ancestors():
            counter = lease._budgets.get(budget)
            if counter is not None and counter.left < amount:
                reason = f"used up: {budget} {print_term(budget, counter.amount)}"
                counter.left = 0
                if not counter.reported:
                    counter.reported = True
                    lease._notify("spend", reason)
                raise Spent(reason)
        for lease in self._with_ancestors():
            if (counter := lease._budgets.get(budget)) is not None:
                counter.left -= amount

    def _end(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._can_end = True
        if self._parent is not None:
            self._parent._children.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        # As the host, because the plugin may be what ends it. The stack runs every step, even if one raises.
        with as_host(), ExitStack() as steps:
            if self._use_timer is not None:
                steps.callback(self._use_timer.stop)
            steps.callback(self._end_holds)
            for child in tuple(self._children):
                steps.callback(child._end, reason)

    def _end_holds(self) -> None:
        while self._holds:
            _, (end, busy) = self._holds.popitem()
            if busy:
                self._count_use(-1)
            try:
                end()
            except BaseException:
                self._end_holds()  # the others are ended in any case
                raise

    def _end_by_itself(self, event: LeaseEvent, reason: str) -> None:
        try:
            self._end(reason)
        finally:
            self._notify(event, reason)

    def _notify(self, event: LeaseEvent, reason: str) -> None:
        if self._on_event is not None:
            with as_host():
                self._on_event(event, reason)

    def _apply_terms(self) -> None:
        """Recomputes what follows from the terms, here and in the children."""
        parent = self._parent
        self._deadline, self._expiry_reason = self._own_deadline, self._own_expiry_reason
        if parent is not None and parent._deadline < self._own_deadline:
            self._deadline, self._expiry_reason = parent._deadline, parent._expiry_reason
        self._has_budget = bool(self._budgets) or (parent is not None and parent._has_budget)
        self._can_end = self._reason is not None or self._deadline < inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._own_deadline < inf:
            reason = self._own_expiry_reason
            left = max(self._own_deadline - monotonic(), 0.0)
            self._timer = call_later(left, lambda: self._end_by_itself("expire", reason))
        for child in tuple(self._children):
            child._apply_terms()

    def _with_ancestors(self) -> "Iterator[Lease]":
        lease: Lease | None = self
        while lease is not None:
            yield lease
            lease = lease._parent

    def _limit_use(self, seconds: Term | None) -> None:
        if self._use_timer is not None:
            self._use_timer.stop()
        self._use_timer = None
        if seconds is not None:
            reason = f"used up: {print_term('seconds', seconds)} of use"
            self._use_timer = _UseTimer(seconds, lambda: self._end_by_itself("spend", reason))
            if self._uses:
                self._use_timer.start()

    def _count_use(self, change: int) -> None:
        lease: Lease | None = self
        while lease is not None:
            lease._uses += change
            if lease._use_timer is not None:
                if change > 0 and lease._uses == 1:
                    lease._use_timer.start()
                elif not lease._uses:
                    lease._use_timer.stop()
            lease = lease._parent
