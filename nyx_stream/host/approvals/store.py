"""What was approved of one plugin's optional permissions: an addition to its operator's policy, through reloads.

Asks nobody, and changes no guard: says which rules stand, and puts them on top of a policy.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from nyx_stream.capabilities.budget import later
from nyx_stream.host.approvals.prompts import ApprovalPrompts
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import ConnectRule, PathRule, Places, RequestRule, SandboxPolicy
from nyx_stream.policy.approval import Answer, Approval, ApprovedSource, OptionalKind, OptionalPermission, Ticket
from nyx_stream.policy.coverage import covers
from nyx_stream.policy.rules import Rule

if TYPE_CHECKING:  # a host without a lock file does without its models
    import asyncio

    from nyx_stream.host.lockfile.file import LockedApproval


_LONGEST_SLEEP = 24 * 3600.0
"""Seconds after which a timer looks at the clock again: that may have been set meanwhile."""


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """One approval that stands: for what, how it was answered, and until when (seconds since the epoch)."""

    kind: OptionalKind
    rule: str
    verdict: Literal["once", "until", "always", "policy"]
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """An approval in force. Its rule is the manifest's; `ticket` is used up in the guard's decisions."""

    permission: OptionalPermission
    verdict: Literal["once", "until", "always", "policy"]
    by: str
    ticket: Ticket

    @property
    def until(self) -> float | None:
        """Seconds since the epoch at which it ends, or `None`."""
        return self.ticket.until if self.ticket.until < inf else None

    @property
    def approval(self) -> Approval:
        """What the plugin is told of it."""
        return Approval(True, self.by, self.verdict == "once", self.until)

    @property
    def status(self) -> ApprovalStatus:
        """What the host is told of it."""
        return ApprovalStatus(self.permission.kind, self.permission.rule.text, self.verdict, self.until)

    @property
    def rule(self) -> Any:
        """The rule, saying that it was approved."""
        return replace(self.permission.rule, source=ApprovedSource(self.by, ticket=self.ticket))


class ApprovalStore:
    """The approvals of one plugin, and its questions.

    An approval is for one permission of one content; for a host that does not look at contents, that is `None`.
    """

    def __init__(self) -> None:
        self.questions = ApprovalPrompts()
        self.forgotten = 0
        """How often something was taken back, or was to be."""
        self._standing: dict[tuple[str | None, OptionalPermission], Standing] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, ended: Callable[[list[Standing]], None]) -> None:
        """Has `ended` called with what has ended, in time; the guard's tickets do not rely on it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends = [item.ticket.until for item in self._standing.values() if item.ticket.until < inf]
        if ends:
            left = min(max(min(ends) - time.time(), 0.0), _LONGEST_SLEEP)
            self._timer = later(left, lambda: self._end(ended))

    def _end(self, ended: Callable[[list[Standing]], None]) -> None:
        gone = {key: item for key, item in self._standing.items() if item.ticket.until <= time.time()}
        for key in gone:
            del self._standing[key]
        ended(list(gone.values()))
        self.watch(ended)

    async def close(self) -> None:
        """Ends the questions that are open; what was approved stands for the next life, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.questions.close()

    def of(self, content: str | None) -> tuple[Standing, ...]:
        """Returns what stands for one content."""
        return tuple(
            item for (own, _), item in self._standing.items() if own == content and item.ticket.invalid is None
        )

    def get(self, source: PluginSource, permission: OptionalPermission) -> Standing | None:
        """Returns the answer of an approver to a permission, if it still stands."""
        item = self._standing.get((source.content, permission))
        return item if item is not None and item.verdict != "policy" and item.ticket.invalid is None else None

    def add(
        self, source: PluginSource, permission: OptionalPermission, answer: Answer, used: Callable[[], None]
    ) -> Standing:
        """Takes a yes; `used` is called when one that is for once is used up."""
        until = time.time() + answer.seconds if answer.seconds is not None else inf
        ticket = Ticket(once=answer.verdict == "once", until=until, on_used=used)
        verdict: Any = answer.verdict
        return self.keep(source, Standing(permission, verdict, _by(answer.verdict, until), ticket))

    def keep(self, source: PluginSource, item: Standing) -> Standing:
        """Takes an approval as it is, in the place of the one before."""
        self._standing[source.content, item.permission] = item
        return item

    def restore(self, source: PluginSource, locked: "Sequence[LockedApproval]") -> None:
        """Takes what was recorded for this content, where the manifest still has it and it is not over."""
        for permission in source.manifest.optional:
            for known in locked:
                if (known.kind, known.rule) != (permission.kind, permission.rule.text):
                    continue
                ticket = Ticket(until=inf if known.until is None else known.until)
                if ticket.invalid is None and self.get(source, permission) is None:
                    self.keep(source, Standing(permission, known.verdict, _by(known.verdict, ticket.until), ticket))

    def retain(self, contents: Collection[str | None]) -> None:
        """Forgets what was approved for other contents than these."""
        self._standing = {key: item for key, item in self._standing.items() if key[0] in contents}

    def forget(self, kind: str | None = None, rule: str | None = None) -> list[Standing]:
        """Takes approvals back: of one kind and rule text, or all; returns those that stood."""
        self.forgotten += 1
        gone = {
            key: item
            for key, item in self._standing.items()
            if (kind is None or item.permission.kind == kind) and (rule is None or item.permission.rule.text == rule)
        }
        for key in gone:
            del self._standing[key]
        return [item for item in gone.values() if item.ticket.invalid is None]

    def over(self, policy: SandboxPolicy, source: PluginSource, places: Places) -> SandboxPolicy:
        """Returns the policy with what was approved of a version on top; its deny rules hold against that too.

        One that was for once and is used up stays there, good for no further operation: what it was used for may still
        be under way, and has yet to be dialled.
        """
        rules = [
            item.rule
            for (content, permission), item in self._standing.items()
            if content == source.content
            and permission in source.manifest.optional
            and (item.verdict != "policy" or on_request(policy, permission, places) is not None)
        ]
        if not rules:
            return policy
        return replace(
            policy,
            approved=SandboxPolicy(
                connect=tuple(rule for rule in rules if isinstance(rule, ConnectRule)),
                request=tuple(rule for rule in rules if isinstance(rule, RequestRule)),
                paths=tuple(rule for rule in rules if isinstance(rule, PathRule)),
            ),
        )


def denied_by(policy: SandboxPolicy, kind: OptionalKind, rule: Rule) -> str | None:
    """Returns why a policy denies all that a rule speaks of, or `None`."""
    denies = next((deny for deny in _denies(policy, kind) if covers(deny, rule)), None)
    return None if denies is None else f"denied by the rule {denies.text}"


def granted_by(policy: SandboxPolicy, rule: Rule) -> Rule | None:
    """Returns a rule of a policy that allows all that a rule speaks of, or `None`."""
    rules: tuple[Rule, ...] = (*policy.connect, *policy.request, *policy.paths)
    return next((own for own in rules if covers(own, rule)), None)


def on_request(policy: SandboxPolicy, permission: OptionalPermission, places: Places) -> Rule | None:
    """Returns the rule by which a policy gives a permission as soon as it is asked for, or `None`."""
    bound = permission.bind(places)
    if policy.on_request is None or bound is None:
        return None
    return granted_by(policy.on_request.bind(places), bound.rule)


def by_policy(permission: OptionalPermission, rule: Rule) -> Standing:
    """Returns the approval of a permission by a rule of the policy."""
    at = f"at {rule.source}" if rule.source is not None else rule.text
    return Standing(permission, "policy", f"approved by the policy {at}", Ticket())


def _denies(policy: SandboxPolicy, kind: OptionalKind) -> Iterator[Rule]:
    if kind in ("read", "write"):
        # A deny rule for paths forbids every operation: it covers reading as well as writing.
        yield from policy.denied_paths
        return
    yield from policy.denied_connect
    if kind == "request":
        yield from policy.denied_request


def _by(verdict: str, until: float) -> str:
    if until == inf:
        return f"approved {verdict}"
    moment = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"approved until {moment}"
