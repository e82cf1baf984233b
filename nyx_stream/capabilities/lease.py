"""The revocation handle of a capability. Knows neither what it revokes nor how: the holder registers how to end it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Literal
from weakref import WeakSet

from nyx_stream.attribution import as_host
from nyx_stream.capabilities.budget import Budget, BudgetCounter, Stopwatch, Tally, later, new_tally
from nyx_stream.errors import Revoked
from nyx_stream.policy.limits import Term, print_term

if TYPE_CHECKING:
    import asyncio

Happening = Literal["expire", "spend"]
"""What a lease does by itself: its time is over, or one of its budgets is used up."""


class Spent(Exception):
    """An operation does not fit into a budget any more. The capability turns it into its own `Revoked`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease as it stands: why it has ended, if it has; and by name what is left of each term that is set."""

    reason: str | None
    left: Mapping[str, Term]


class Lease:
    """The host's hold on one capability of one plugin.

    A capability calls `check` before each operation and `hold` for everything that outlives one (an open file, a
    response in flight). `revoke`, and the end of its time, end all of it, once and for good. A budget that is used up
    refuses what goes beyond it, until it is set anew. Leases made by `child` end with this one, and what is spent
    through them is spent here as well. All of it is called on the event loop's thread.

    Args:
        plugin: id of the plugin.
        capability: name of the capability.
        told: called when the lease expires or a budget is used up, with the reason.
        tally: counts what is spent here and below, with and without a budget.
    """

    __slots__ = (
        "__weakref__", "_busy", "_children", "_deadline", "_expiry", "_holds", "_meter", "_metered", "_numbers",
        "_own_expiry", "_parent", "_reason", "_stopwatch", "_tally", "_timer", "_told", "_until", "_watched",
        "capability", "plugin",
    )  # fmt: skip

    def __init__(
        self,
        plugin: str | None,
        capability: str,
        *,
        told: Callable[[Happening, str], None] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.plugin = plugin
        self.capability = capability
        self._told = told
        self._tally = new_tally() if tally is None else tally
        self._parent: Lease | None = None
        self._children: WeakSet[Lease] = WeakSet()
        self._reason: str | None = None
        self._holds: dict[int, tuple[Callable[[], object], bool]] = {}
        self._numbers = count()
        self._meter = BudgetCounter()
        self._stopwatch: Stopwatch | None = None
        self._busy = 0
        self._until, self._own_expiry = inf, ""
        # What follows from this lease and those above it.
        self._deadline, self._expiry = inf, ""
        self._timer: asyncio.TimerHandle | None = None
        self._metered = False
        self._watched = False
        """Whether it has ended or has a deadline: the one thing that a lease without terms is asked."""

    @property
    def ended(self) -> bool:
        """Whether the lease was revoked, or its time is over: by the clock, before the loop's timer comes to it."""
        return self._watched and (self._reason is not None or monotonic() >= self._deadline)

    @property
    def reason(self) -> str:
        """Why it has ended; why it will, if it has a deadline."""
        return self._reason if self._reason is not None else self._expiry

    def status(self) -> LeaseStatus:
        """Returns how the lease stands."""
        left: dict[str, Term] = dict(self._meter.left)
        if self._until < inf:
            left["ttl"] = max(self._until - monotonic(), 0.0)
        if self._stopwatch is not None:
            left["seconds"] = self._stopwatch.left
        return LeaseStatus(self.reason if self.ended else None, left)

    def check(self, action: str = "use", target: str = "") -> None:
        """Raises `Revoked` once the lease has ended."""
        if self._watched and self.ended:
            raise self.error(action, target)

    def error(self, action: str = "use", target: str = "", reason: str | None = None) -> Revoked:
        """The error for an operation that the end of this lease stops, or a budget of it that is used up."""
        why = self.reason if reason is None else reason
        return Revoked(
            plugin=self.plugin, capability=self.capability, action=action, target=target, rule=None, reason=why
        )

    def hold(self, end: Callable[[], object], *, busy: bool = False) -> Callable[[], None]:
        """Registers `end`, to be called when the lease ends; returns a function that takes it back.

        `end` must not block and must not raise. With `busy` the time until it is taken back counts as use. Raises
        `Revoked` if the lease has already ended, so that nothing can be registered behind a revocation's back.
        """
        self.check()
        number = next(self._numbers)
        self._holds[number] = end, busy
        if busy:
            self._begin_use()

        def release() -> None:
            if self._holds.pop(number, None) is not None and busy:
                self._end_use()

        return release

    def spend(self, budget: Budget, amount: int = 1) -> None:
        """Takes `amount` from a budget, here and above. What does not fit leaves nothing of it, and raises `Spent`."""
        if self._metered:
            self._take(budget, amount)
        self._tally[budget] += amount

    def _take(self, budget: Budget, amount: int) -> None:
        for lease in self._line():
            if lease._meter.lacks(budget, amount):
                reason = f"used up: {budget} {print_term(budget, lease._meter.whole(budget))}"
                if lease._meter.use_up(budget):
                    lease._tell("spend", reason)
                raise Spent(reason)
        for lease in self._line():
            lease._meter.take(budget, amount)

    def limit(self, terms: Mapping[str, Term | None]) -> None:
        """Sets terms anew, from now on, by name, as `policy.limits.parse_terms` gives them; `None` lifts one.

        Terms that are not named go on as they are. Raises `Revoked` if the lease has ended: it does not come back.
        """
        self.check("lease")
        for name, value in terms.items():
            if name == "ttl":
                self._until = inf if value is None else monotonic() + value
                self._own_expiry = "" if value is None else f"expired: its {print_term(name, value)} are over"
            elif name == "seconds":
                self._set_stopwatch(value)
            else:
                self._meter.budget(name, None if value is None else int(value))
        self._settle()

    def child(self, terms: Mapping[str, Term | None] | None = None) -> "Lease":
        """Returns a lease below this one, ended if this one is. It can be ended by itself, and has terms of its own."""
        child = Lease(self.plugin, self.capability, tally=self._tally)
        child._parent = self
        if self.ended:
            child._end(self.reason)
            return child
        self._children.add(child)
        child.limit(terms or {})
        return child

    def revoke(self, reason: str) -> None:
        """Ends the lease and everything held through it. Further calls change nothing."""
        self._end(f"revoked: {reason}")

    def _end(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._watched = True
        if self._parent is not None:
            self._parent._children.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        with as_host(), ExitStack() as then:  # it may be the plugin that ends it
            if self._stopwatch is not None:
                then.callback(self._stopwatch.stop)
            then.callback(self._end_holds)
            for child in tuple(self._children):
                then.callback(child._end, reason)

    def _end_holds(self) -> None:
        while self._holds:
            _, (end, busy) = self._holds.popitem()
            if busy:
                self._end_use()
            try:
                end()
            except BaseException:
                self._end_holds()  # a fault in one leaves no other open
                raise

    def _expire(self) -> None:
        reason = self._expiry
        try:
            self._end(reason)
        finally:
            self._tell("expire", reason)

    def _tell(self, happening: Happening, reason: str) -> None:
        if self._told is not None:
            with as_host():
                self._told(happening, reason)

    def _settle(self) -> None:
        """Draws the conclusions from new terms, here and below."""
        above = self._parent
        self._deadline, self._expiry = self._until, self._own_expiry
        if above is not None and above._deadline < self._until:
            self._deadline, self._expiry = above._deadline, above._expiry
        self._metered = bool(self._meter) or (above is not None and above._metered)
        self._watched = self._reason is not None or self._deadline < inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._until < inf:
            self._timer = later(max(self._until - monotonic(), 0.0), self._expire)
        for child in tuple(self._children):
            child._settle()

    def _line(self) -> "Iterator[Lease]":
        lease: Lease | None = self
        while lease is not None:
            yield lease
            lease = lease._parent

    def _set_stopwatch(self, seconds: Term | None) -> None:
        if self._stopwatch is not None:
            self._stopwatch.stop()
        self._stopwatch = None
        if seconds is not None:
            reason = f"used up: {print_term('seconds', seconds)} of use"
            self._stopwatch = Stopwatch(seconds, lambda: self._use_up(reason))
            if self._busy:
                self._stopwatch.start()

    def _use_up(self, reason: str) -> None:
        try:
            self._end(reason)
        finally:
            self._tell("spend", reason)

    def _begin_use(self) -> None:
        for lease in self._line():
            lease._busy += 1
            if lease._busy == 1 and lease._stopwatch is not None:
                lease._stopwatch.start()

    def _end_use(self) -> None:
        for lease in self._line():
            lease._busy -= 1
            if lease._busy == 0 and lease._stopwatch is not None:
                lease._stopwatch.stop()
