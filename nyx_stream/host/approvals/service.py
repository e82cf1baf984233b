"""Decides whether a plugin gets an optional permission that it requests while it runs.

Theory of operation: the manifest bounds what can be requested, and the policy decides first. It can deny the
permission, allow it already, or grant it on request. What it leaves open goes to the host's approver, as a question
(`prompts.py`). A granted permission is kept (`store.py`) and added to the plugin's policy in one assignment, so that
the next check sees it. A lock file, if the host has one, keeps approvals for later hosts. Every question and answer is
an audit event of kind `approval`.
"""

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.capabilities.lease import call_later
from nyx_stream.errors import LockError
from nyx_stream.host.approvals.prompts import Approver, get_answer
from nyx_stream.host.approvals.store import (
    ActiveApproval,
    ApprovalStore,
    approved_by_policy,
    denied_by,
    granted_by,
    on_request,
)
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import Places, SandboxPolicy
from nyx_stream.policy.approval import KINDS, MAX_REASON_LENGTH, Approval, OptionalPermission, Question, parse_target
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import Rule, RuleError
from nyx_stream.text import escape

if TYPE_CHECKING:  # a host without a lock file doesn't import its models
    from nyx_stream.host.lockfile.file import LockedApproval
    from nyx_stream.host.lockfile.verification import LockRecorder

_log = logging.getLogger("nyx.host")
_CAPABILITIES = {"connect": "connect", "request": "http", "read": "files", "write": "files"}


class Applicant(Protocol):
    """What the approval service needs of a plugin; the host's plugin record provides it."""

    policy: SandboxPolicy
    approvals: ApprovalStore

    @property
    def id(self) -> str:
        """The plugin's id."""

    @property
    def is_active(self) -> bool:
        """Whether the plugin is starting or running."""

    def places(self, source: PluginSource) -> Places:
        """Returns the paths of `$DATA` and `$PLUGIN`."""

    def refresh_policy(self) -> None:
        """Puts the current approvals in force."""

    def counting_sink(self, sink: AuditSink | None) -> AuditSink | None:
        """Returns a sink that also counts the plugin's denials."""


class ApprovalService:
    """Decides the requests of one host's plugins.

    Args:
        approver: decides what the policy leaves open; if `None`, that is refused.
        timeout: seconds that the approver gets for one question.
        audit: the host's audit trail.
        lock: the host's lock file, if it has one.
    """

    def __init__(
        self, approver: Approver | None, timeout: float, audit: AuditTrail, lock: "LockRecorder | None"
    ) -> None:
        self._approver = approver
        self._timeout = timeout
        self._audit = audit
        self._lock = lock

    async def request(self, plugin: Applicant, source: PluginSource, kind: str, target: str, why: str) -> Approval:
        """Decides a plugin's request for an optional permission. A refusal is a result: this never raises for one."""
        places, approvals = plugin.places(source), plugin.approvals
        found = _find_permission(source.manifest, places, kind, target)
        if isinstance(found, str):
            return self._refuse(plugin, kind, target, found)
        permission, wanted = found
        if not plugin.is_active:
            return self._refuse(plugin, kind, target, "the plugin is being stopped")
        policy = plugin.policy.bind(places)
        if (denied := denied_by(policy, permission.kind, wanted)) is not None:
            return self._refuse(plugin, kind, target, denied)
        if (rule := granted_by(policy, wanted)) is not None:
            return Approval(True, f"allowed by the rule {rule.text}")
        rule = on_request(policy, permission, places)
        known = approvals.get(source, permission)
        if known is not None:
            return known.approval
        if rule is not None:
            return self._grant(plugin, approvals.put(source, approved_by_policy(permission, rule)), target).approval
        if self._approver is None:
            reason = "the policy doesn't grant it on request, and the host has no approver"
            return self._refuse(plugin, kind, target, reason)
        if (refusal := approvals.prompts.refusal(permission)) is not None:
            return self._refuse(plugin, kind, target, refusal)
        question = _question(source.manifest, permission, target, why)
        ask = partial(self._ask_approver, self._approver, plugin, source, permission, question)
        return await approvals.prompts.ask(permission, ask)

    async def forget(self, plugin: Applicant, kind: str | None, rule: str | None) -> int:
        """Withdraws approvals at once; returns how many.

        Raises:
            LockError, OSError: they are withdrawn, but the lock file still has them.
        """
        removed = plugin.approvals.remove(kind, rule)
        for item in removed:
            permission = item.permission
            self.record(plugin, permission.kind, "forget", permission.rule.text, "withdrawn", rule=permission.rule)
        if removed:
            plugin.refresh_policy()
        seen = {(item.permission.kind, item.permission.rule.text) for item in removed}
        # Even if this host has none: another host may have recorded one, and the next start would restore it.
        for found in await self._lock.remove(plugin.id, kind, rule) if self._lock is not None else ():
            if (found.kind, found.rule) not in seen:
                seen.add((found.kind, found.rule))
                self.record(plugin, found.kind, "forget", found.rule, "withdrawn", rule=found.rule)
        return len(seen)

    def schedule_expiry(self, plugin: Applicant) -> None:
        """Arranges for the plugin's approvals to end in time."""
        plugin.approvals.schedule_expiry(partial(self._on_expired, plugin))

    async def _ask_approver(
        self,
        approver: Approver,
        plugin: Applicant,
        source: PluginSource,
        permission: OptionalPermission,
        question: Question,
    ) -> Approval:
        """Asks the approver and acts on the answer. Runs in a task of the host."""
        kind, target = permission.kind, question.target
        self.record(plugin, kind, "ask", target, f"asked: {question.why}" if question.why else "asked")
        answer = await get_answer(approver, question, self._timeout)
        if answer.verdict == "no":
            reason = escape(answer.reason, MAX_REASON_LENGTH) or "the approver refused"
            return self._refuse(plugin, kind, target, reason, "answer")
        places = plugin.places(source)
        bound = permission.bind(places) or permission
        # The policy may have changed meanwhile.
        if (denied := denied_by(plugin.policy.bind(places), kind, bound.rule)) is not None:
            return self._refuse(plugin, kind, target, escape(denied, MAX_REASON_LENGTH), "answer")
        approval = plugin.approvals.add(source, permission, answer, partial(self._on_used, plugin, permission))
        self._grant(plugin, approval, target)
        if self._lock is not None and source.content is not None and approval.verdict in ("until", "always"):
            try:
                await self._lock.add(
                    plugin.id,
                    source.content,
                    lambda: lasting([item for item in plugin.approvals.active(source.content) if item is approval]),
                )
            except (LockError, OSError) as error:
                _log.error("plugin %s: an approval holds for this host only: %s", plugin.id, error)
        return approval.approval

    def _grant(self, plugin: Applicant, item: ActiveApproval, target: str) -> ActiveApproval:
        """Puts a new approval in force."""
        self.record(plugin, item.permission.kind, "answer", target, item.reason, rule=item.permission.rule)
        plugin.refresh_policy()
        self.schedule_expiry(plugin)
        return item

    def _refuse(self, plugin: Applicant, kind: str, target: str, reason: str, action: str = "ask") -> Approval:
        self.record(plugin, kind, action, target, reason, allowed=False)
        return Approval(False, reason)

    def _on_used(self, plugin: Applicant, permission: OptionalPermission) -> None:
        reason = "approved once: it is used up"
        self.record(plugin, permission.kind, "use", permission.rule.text, reason, rule=permission.rule)
        # Later, because this is called from within a decision.
        call_later(0, plugin.refresh_policy)

    def _on_expired(self, plugin: Applicant, expired: list[ActiveApproval]) -> None:
        for item in expired:
            permission = item.permission
            self.record(plugin, permission.kind, "expire", permission.rule.text, "expired", rule=permission.rule)
        plugin.refresh_policy()

    def record(
        self,
        plugin: Applicant,
        kind: str,
        action: str,
        target: str,
        reason: str,
        *,
        allowed: bool = True,
        rule: Rule | str | None = None,
    ) -> None:
        """Records an event of kind `approval`; `kind` is the permission's, or `"plugin"` for an update."""
        sink = plugin.counting_sink(self._audit.sink)
        if sink is None:
            return
        text = rule if isinstance(rule, str) or rule is None else rule.text
        capability = _CAPABILITIES.get(kind, "plugin")
        sink(AuditEvent(time.time(), plugin.id, capability, action, target, allowed, text, reason, "host", "approval"))


def lasting(approvals: Iterable[ActiveApproval]) -> "list[LockedApproval]":
    """Returns the approvals that outlive the host, as the lock file has them."""
    from nyx_stream.host.lockfile.file import LockedApproval

    return [
        LockedApproval(kind=item.permission.kind, rule=item.permission.rule.text, verdict=verdict, until=item.until)
        for item in approvals
        if (verdict := item.verdict) == "until" or verdict == "always"
    ]


def _find_permission(
    manifest: Manifest, places: Places, kind: str, target: str
) -> tuple[OptionalPermission, Rule] | str:
    """Returns the optional permission that covers a request, and the requested rule; or why there is none."""
    known = next((own for own in KINDS if own == kind), None)
    if known is None:
        return f"permissions of kind {escape(kind, 64)} can't be requested; the kinds are {', '.join(KINDS)}"
    try:
        rule = parse_target(known, target)
    except RuleError as error:
        return f"not a valid {kind} rule: {escape(error.reason)}"
    wanted = OptionalPermission(known, rule).bind(places)
    if wanted is None:
        return f"not a valid {kind} rule: there is no such directory"
    for permission in manifest.optional:
        bound = permission.bind(places)
        if bound is not None and bound.covers(kind, wanted.rule):
            return permission, wanted.rule
    return "no optional permission of the plugin's manifest covers it"


def _question(manifest: Manifest, permission: OptionalPermission, target: str, why: str) -> Question:
    return Question(
        plugin=manifest.id,
        version=manifest.version,
        kind=permission.kind,
        rule=escape(permission.rule.text),
        manifest_why=escape(permission.why, MAX_REASON_LENGTH) if permission.why else None,
        target=escape(target),
        why=escape(why, MAX_REASON_LENGTH),
    )
