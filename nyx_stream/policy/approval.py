"""Asking for an optional permission: the question, its answer, and what follows from it. Values; asks nobody.

The `Question` goes to the host's approver, which gives an `Answer`; the plugin gets an `Approval`. In the guard an
approved rule has an `ApprovedSource`, whose ticket says, where an operation is done, whether it still may.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Self, TypeAlias

from nyx_stream.policy.optional import OptionalKind
from nyx_stream.policy.rule import Source
from nyx_stream.policy.units import parse_duration, print_duration

LONGEST_TEXT = 2048
"""Characters that a plugin may send as what it asks for, and as its reason."""

LONGEST_KIND = 64
"""Characters of the name of a kind."""

LONGEST_WHY = 300
"""Characters of a reason that are shown to an approver, and recorded."""

Verdict: TypeAlias = Literal["once", "until", "always", "no"]


@dataclass(frozen=True, slots=True)
class Question:
    """What an approver is asked. Every text is escaped and cut: safe to print, and still only a plugin's words.

    Attributes:
        plugin, version: whose question it is.
        kind: `"connect"`, `"request"`, `"read"` or `"write"`.
        rule: the optional rule of the manifest that would be granted, whole.
        manifest_why: the reason that the manifest gives for it, or `None`.
        target: what the plugin asked for; the rule covers it, and may cover more.
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
    """What an approver says. Make one with `once`, `until`, `always` or `no`.

    Attributes:
        verdict: what it is.
        seconds: for `until`, how long from now.
        reason: for `no`, why; the plugin reads it.
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
        """Allows it from now on: as long as the host lives and, with a lock file, in the hosts after it."""
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
    """What `self.request` returns: true if it is granted.

    Attributes:
        granted: whether the plugin has the permission now.
        once: whether it is for one operation.
        until: seconds since the epoch at which it ends, or `None` if no end is set.
        reason: who granted it, or why not.
    """

    granted: bool
    reason: str
    once: bool = False
    until: float | None = None

    def __bool__(self) -> bool:
        return self.granted


class Ticket:
    """The right to use one approval. Used on the event loop's thread.

    With `once` it is good for one operation, which is counted where it is done: a request when it passes the gate (each
    hop of a redirect is one), an operation on files before the system is asked, a connection before it is dialled. One
    that fails after that has used it. With `until` it is good up to that moment, by the clock.
    """

    __slots__ = ("_used", "once", "told", "until")

    def __init__(self, *, once: bool = False, until: float = inf, told: Callable[[], None] = lambda: None) -> None:
        self.once = once
        self.until = until
        self.told = told
        self._used = False

    @property
    def over(self) -> str | None:
        """Why it is good for nothing any more, or `None`."""
        if self._used:
            return "it was approved once, and that is used up"
        return "its approval is over" if self.until < inf and time.time() >= self.until else None

    def take(self) -> str | None:
        """Uses the approval for one operation; returns why that cannot be, or `None`."""
        over = self.over
        if over is None and self.once:
            self._used = True
            self.told()
        return over


@dataclass(frozen=True, slots=True)
class ApprovedSource(Source):
    """Where a rule comes from that was approved: `where` says by whom, and for how long."""

    ticket: Ticket = field(default_factory=Ticket)
