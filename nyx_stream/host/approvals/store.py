"""The approved optional permissions of one plugin, which add to its operator's policy and outlive its runs."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nyx_stream.capabilities.lease import call_later
from nyx_stream.host.approvals.prompts import ApprovalPrompts
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import ConnectRule, PathRule, Places, RequestRule, SandboxPolicy
from nyx_stream.policy.approval import Answer, Approval, ApprovedSource, OptionalKind, OptionalPermission, Ticket
from nyx_stream.policy.coverage import covers
from nyx_stream.policy.rules import Rule

if TYPE_CHECKING:  # a host without a lock file doesn't import its models
    import asyncio

    from nyx_stream.host.lockfile.file import LockedApproval

_MAX_SLEEP = 24 * 3600.0
"""Seconds after which the timer reads the clock again, because the clock may have been set."""

_GrantVerdict: TypeAlias = Literal["once", "until", "always", "policy"]


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """An approval in force.

    Attributes:
        kind: of the permission.
        rule: of the manifest, as text.
        verdict: the answer that granted it, or `"policy"` if the policy grants it on request.
        until: seconds since the epoch at which it ends, or `None`.
    """

    kind: OptionalKind
    rule: str
    verdict: Literal["once", "until", "always", "policy"]
    until: float | None = None


@dataclass(frozen=True, slots=True)
class ActiveApproval:
    """An approval in force. Its rule is the manifest's; the guard uses up `ticket` when it decides."""

    permission: OptionalPermission
    verdict: _GrantVerdict
    reason: str
    ticket: Ticket

    @property
    def until(self) -> float | None:
        """Seconds since the epoch at which it ends, or `None`."""
        return self.ticket.until if self.ticket.until < inf else None

    @property
    def approval(self) -> Approval:
        """The result for the plugin."""
        return Approval(True, self.reason, self.verdict == "once", self.until)

    @property
    def status(self) -> ApprovalStatus:
        """The status for the host."""
        return ApprovalStatus(self.permission.kind, self.permission.rule.text, self.verdict, self.until)

    @property
    def rule(self) -> Any:
        """The rule, with the approval as its source."""
        return replace(self.permission.rule, source=ApprovedSource(self.reason, ticket=self.ticket))


class ApprovalStore:
    """The approvals of one plugin, and its questions to the approver.

    An approval is for one permission of one content. Without a lock file the content is `None`.
    """

    def __init__(self) -> None:
        self.prompts = ApprovalPrompts()
        self.removals = 0
        """How often `remove` was called, including calls that removed nothing."""
        self._approvals: dict[tuple[str | None, OptionalPermission], ActiveApproval] = {}
        self._timer: asyncio.TimerHandle | None = None

    def schedule_expiry(self, on_expired: Callable[[list[ActiveApproval]], None]) -> None:
        """Arranges for `on_expired` to be called with approvals that have ended. Tickets end without it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends = [item.ticket.until for item in self._approvals.values() if item.ticket.until < inf]
        if ends:
            delay = min(max(min(ends) - time.time(), 0.0), _MAX_SLEEP)
            self._timer = call_later(delay, lambda: self._expire(on_expired))

    def _expire(self, on_expired: Callable[[list[ActiveApproval]], None]) -> None:
        expired = {key: item for key, item in self._approvals.items() if item.ticket.until <= time.time()}
        for key in expired:
            del self._approvals[key]
        on_expired(list(expired.values()))
        self.schedule_expiry(on_expired)

    async def close(self) -> None:
        """Cancels the open questions. Approvals stay for the plugin's next run."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.prompts.close()

    def active(self, content: str | None) -> tuple[ActiveApproval, ...]:
        """Returns the approvals of one content that hold."""
        return tuple(
            item for (own, _), item in self._approvals.items() if own == content and item.ticket.invalid is None
        )

    def get(self, source: PluginSource, permission: OptionalPermission) -> ActiveApproval | None:
        """Returns the approver's approval of a permission, if it still holds."""
        item = self._approvals.get((source.content, permission))
        return item if item is not None and item.verdict != "policy" and item.ticket.invalid is None else None

    def add(
        self, source: PluginSource, permission: OptionalPermission, answer: Answer, on_used: Callable[[], None]
    ) -> ActiveApproval:
        """Adds an approval; `on_used` is called when one that is for one operation is used up."""
        until = time.time() + answer.seconds if answer.seconds is not None else inf
        ticket = Ticket(once=answer.verdict == "once", until=until, on_used=on_used)
        verdict: Any = answer.verdict
        return self.put(source, ActiveApproval(permission, verdict, _describe(answer.verdict, until), ticket))

    def put(self, source: PluginSource, item: ActiveApproval) -> ActiveApproval:
        """Adds an approval as it is; it replaces an earlier one of the same permission."""
        self._approvals[source.content, item.permission] = item
        return item

    def restore(self, source: PluginSource, recorded: "Sequence[LockedApproval]") -> None:
        """Adds what was recorded for this content, if the manifest still has the permission and it hasn't expired."""
        for permission in source.manifest.optional:
            for known in recorded:
                if (known.kind, known.rule) != (permission.kind, permission.rule.text):
                    continue
                ticket = Ticket(until=inf if known.until is None else known.until)
                if ticket.invalid is None and self.get(source, permission) is None:
                    reason = _describe(known.verdict, ticket.until)
                    self.put(source, ActiveApproval(permission, known.verdict, reason, ticket))

    def retain(self, contents: Collection[str | None]) -> None:
        """Drops the approvals of other contents than these."""
        self._approvals = {key: item for key, item in self._approvals.items() if key[0] in contents}

    def remove(self, kind: str | None = None, rule: str | None = None) -> list[ActiveApproval]:
        """Removes the approvals of one kind and rule text, or all; returns those that were in force."""
        self.removals += 1
        removed = {
            key: item
            for key, item in self._approvals.items()
            if (kind is None or item.permission.kind == kind) and (rule is None or item.permission.rule.text == rule)
        }
        for key in removed:
            del self._approvals[key]
        return [item for item in removed.values() if item.ticket.invalid is None]

    def extend(self, policy: SandboxPolicy, source: PluginSource, places: Places) -> SandboxPolicy:
        """Returns the policy with the approvals of a version added. The policy's deny rules apply to them too.

        A used-up approval stays in the policy and allows no further operation: the operation that used it may still
        have to connect.
        """
        rules = [
            item.rule
            for (content, permission), item in self._approvals.items()
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
    """Returns why a policy denies everything that a rule covers, or `None`."""
    denies = next((deny for deny in _denies(policy, kind) if covers(deny, rule)), None)
    return None if denies is None else f"denied by the rule {denies.text}"


def granted_by(policy: SandboxPolicy, rule: Rule) -> Rule | None:
    """Returns a rule of a policy that allows everything that `rule` covers, or `None`."""
    rules: tuple[Rule, ...] = (*policy.connect, *policy.request, *policy.paths)
    return next((own for own in rules if covers(own, rule)), None)


def on_request(policy: SandboxPolicy, permission: OptionalPermission, places: Places) -> Rule | None:
    """Returns the rule by which a policy grants a permission on request, or `None`."""
    bound = permission.bind(places)
    if policy.on_request is None or bound is None:
        return None
    return granted_by(policy.on_request.bind(places), bound.rule)


def approved_by_policy(permission: OptionalPermission, rule: Rule) -> ActiveApproval:
    """Returns the approval of a permission by a rule of the policy."""
    where = f"at {rule.source}" if rule.source is not None else rule.text
    return ActiveApproval(permission, "policy", f"approved by the policy {where}", Ticket())


def _denies(policy: SandboxPolicy, kind: OptionalKind) -> Iterator[Rule]:
    if kind in ("read", "write"):
        # A deny rule for paths forbids every operation: it covers reading as well as writing.
        yield from policy.denied_paths
        return
    yield from policy.denied_connect
    if kind == "request":
        yield from policy.denied_request


def _describe(verdict: str, until: float) -> str:
    if until == inf:
        return f"approved {verdict}"
    return datetime.fromtimestamp(until, UTC).strftime("approved until %Y-%m-%dT%H:%M:%SZ")
