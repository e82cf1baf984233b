"""Optional permissions, and how a plugin asks for one while it runs.

The manifest marks a permission as optional (`OptionalPermission`). When the plugin asks for it, the host's approver
gets a `Question` and returns an `Answer`; the plugin gets an `Approval`. In the guard, the approved rule has an
`ApprovedSource`, whose ticket says at each operation whether the approval is still valid.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, Self, TypeAlias

from nyx_stream.policy.coverage import covers
from nyx_stream.policy.limits import parse_duration, print_duration
from nyx_stream.policy.rules import ConnectRule, PathRule, Places, RequestRule, Rule, Source

MAX_TEXT_LENGTH = 2048
"""Characters of the target and of the reason that a plugin may send."""

MAX_KIND_LENGTH = 64
"""Characters of the name of a kind."""

MAX_REASON_LENGTH = 300
"""Characters of a reason that are shown to an approver and recorded."""

OptionalKind: TypeAlias = Literal["connect", "request", "read", "write"]

KINDS: tuple[OptionalKind, ...] = ("connect", "request", "read", "write")
"""Kinds of permission that can be optional. A variable can't: a plugin that has read it keeps its value."""

Verdict: TypeAlias = Literal["once", "until", "always", "no"]


@dataclass(frozen=True)
class OptionalPermission:
    """A permission that the plugin runs without and may ask for. `why` is the author's reason."""

    kind: OptionalKind
    rule: Rule
    why: str | None = None

    def bind(self, places: Places) -> Self | None:
        """Returns it with the variable of a path replaced, or `None` if `places` doesn't have the variable."""
        if not isinstance(self.rule, PathRule):
            return self
        bound = self.rule.bind(places)
        return None if bound is None else replace(self, rule=bound)

    def covers(self, kind: str, target: Rule) -> bool:
        """Returns whether this permission grants all of `target`."""
        return kind == self.kind and covers(self.rule, target)


def parse_target(kind: OptionalKind, text: str, source: Source | None = None) -> Rule:
    """Parses a rule of the given kind. Raises `RuleError`."""
    match kind:
        case "connect":
            return ConnectRule.parse(text, source)
        case "request":
            return RequestRule.parse(text, source)
        case _:
            return PathRule.parse(text, "r" if kind == "read" else "rw", source)


@dataclass(frozen=True, slots=True)
class Question:
    """What an approver is asked. Every text is escaped and cut to a length, so it is safe to print.

    `target` and `why` are the plugin's own words: don't trust what they claim.

    Attributes:
        plugin, version: the plugin that asks.
        kind: `"connect"`, `"request"`, `"read"` or `"write"`.
        rule: the optional rule of the manifest, which would be granted completely.
        manifest_why: the reason that the manifest gives for it, or `None`.
        target: what the plugin asked for. The rule covers it, and may cover more.
        why: the reason that the plugin's code gives now.
    """

    plugin: str
    version: str
    kind: OptionalKind
    rule: str
    manifest_why: str | None
    target: str
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An approver's answer. Make one with `once`, `until`, `always` or `no`.

    Attributes:
        verdict: the name of the method that made it.
        seconds: for `until`, the duration from now.
        reason: for `no`, the reason that the plugin reads.
    """

    verdict: Verdict
    seconds: float | None = None
    reason: str = ""

    @classmethod
    def once(cls) -> Self:
        """Allows one operation: one request, one operation on files, or one connection. See `Ticket`."""
        return cls("once")

    @classmethod
    def until(cls, ttl: str | float) -> Self:
        """Allows it for a time: `Answer.until("10m")`, or seconds. Raises `ValueError` if it does not parse."""
        return cls("until", parse_duration(ttl))

    @classmethod
    def always(cls) -> Self:
        """Allows it from now on: for the lifetime of the host and, with a lock file, in later hosts too."""
        return cls("always")

    @classmethod
    def no(cls, reason: str = "") -> Self:
        """Refuses it."""
        return cls("no", reason=reason)

    def __str__(self) -> str:
        if self.verdict == "until" and self.seconds is not None:
            return f"for {print_duration(self.seconds)}"
        return f"no: {self.reason}" if self.reason else self.verdict


@dataclass(frozen=True, slots=True)
class Approval:
    """The result of `self.request`. It is true if the permission is granted.

    Attributes:
        granted: whether the plugin has the permission now.
        once: whether it is for one operation.
        until: seconds since the epoch at which it ends, or `None` if no end is set.
        reason: who granted it, or why it was refused.
    """

    granted: bool
    reason: str
    once: bool = False
    until: float | None = None

    def __bool__(self) -> bool:
        return self.granted


class Ticket:
    """The right to use one approval. It is used on the event loop's thread.

    With `once` it allows one operation, counted where the operation is performed: a request when it passes the guarded
    transport (each redirect hop is a request), an operation on files before the system call, a connection before it is
    dialled. An operation that then fails has used the ticket. With `until` the ticket is valid up to that time, in
    seconds since the epoch.
    """

    __slots__ = ("_used", "on_used", "once", "until")

    def __init__(self, *, once: bool = False, until: float = inf, on_used: Callable[[], None] = lambda: None) -> None:
        self.once = once
        self.until = until
        self.on_used = on_used
        self._used = False

    @property
    def invalid(self) -> str | None:
        """Why the ticket can't be used any more, or `None` if it can."""
        if self._used:
            return "it was approved once, and that is used up"
        return "its approval is over" if self.until < inf and time.time() >= self.until else None

    def use(self) -> str | None:
        """Uses the approval for one operation. Returns why that isn't possible, or `None`."""
        reason = self.invalid
        if reason is None and self.once:
            self._used = True
            self.on_used()
        return reason


@dataclass(frozen=True, slots=True)
class ApprovedSource(Source):
    """The source of an approved rule: `where` says who approved it, and for how long."""

    ticket: Ticket = field(default_factory=Ticket)
