"""Where a host's plugins ask for their optional permissions: what may be asked, who decides, and what follows.

The policy decides first; what it leaves open goes to the approver. A yes is put on top of the policy in one
assignment. Every question and every answer is an audit event of kind `approval`.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from nyx_stream.audit import AuditEvent
from nyx_stream.capabilities.budget import later
from nyx_stream.errors import ContentChanged, LockError, PluginStateError, UpdateWaiting
from nyx_stream.host.approvals.prompts import Approver, answer_of
from nyx_stream.host.approvals.store import Standing, by_policy, denied_by, granted_by, on_request
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.update_policy import renew
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import Places
from nyx_stream.policy.approval import (
    KINDS,
    MAX_REASON_LENGTH,
    Answer,
    Approval,
    OptionalKind,
    OptionalPermission,
    Question,
    parse_target,
)
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import Rule, RuleError
from nyx_stream.text import escape

if TYPE_CHECKING:
    from nyx_stream.host.lockfile.recorder import LockRecorder

_log = logging.getLogger("nyx.host")
_CAPABILITIES = {"connect": "connect", "request": "http", "read": "files", "write": "files"}
_ALIVE = (State.STARTING, State.RUNNING)


class ApprovalService:
    """The desk of one host.

    Args:
        approver: decides what the policy leaves open; without one, nobody does.
        timeout: seconds that it gets for one question.
        trail: where the host's events go.
        lock: the lock file, if the host has one.
    """

    def __init__(
        self,
        approver: Approver | None,
        timeout: float,
        trail: AuditTrail,
        lock: "LockRecorder | None" = None,
    ) -> None:
        self._approver = approver
        self._timeout = timeout
        self._trail = trail
        self.lock = lock

    async def ask(self, entry: PluginRecord, source: PluginSource, kind: str, target: str, why: str) -> Approval:
        """Answers a plugin that asks for one of its optional permissions; never raises because of what it sends."""
        found = _find(source.manifest, entry.places(source), kind, target)
        if isinstance(found, str):
            return self._refuse(entry, kind, target, found)
        permission, wanted = found
        if entry.state not in _ALIVE:
            return self._refuse(entry, kind, target, "the plugin is being stopped")
        places, approvals = entry.places(source), entry.approvals
        policy = entry.policy.bind(places)
        if (denied := denied_by(policy, permission.kind, wanted)) is not None:
            return self._refuse(entry, kind, target, denied)
        if (rule := granted_by(policy, wanted)) is not None:
            return Approval(True, f"allowed by the rule {rule.text}")
        given = on_request(policy, permission, places)
        standing = approvals.get(source, permission)
        if standing is not None and (standing.verdict != "policy" or given is not None):
            return standing.approval
        if given is not None:
            return self._take(entry, approvals.keep(source, by_policy(permission, given)), target).approval
        if self._approver is None:
            return self._refuse(entry, kind, target, "the policy does not give it on request, and nobody can be asked")
        if (busy := approvals.questions.why_not(permission)) is not None:
            return self._refuse(entry, kind, target, busy)
        question = _question(source.manifest, permission, target, why)
        put = partial(self._put, self._approver, entry, source, permission, question)
        return await approvals.questions.join(permission, put)

    async def forget(self, entry: PluginRecord, kind: str | None, rule: str | None) -> int:
        """Takes approvals back, at once; returns how many. Raises what writing the lock file raises, after that."""
        gone = entry.approvals.forget(kind, rule)
        for item in gone:
            self._record(entry, item.permission.kind, "forget", item.permission.rule.text, True, item, "taken back")
        if gone:
            renew(entry)
        known = {(item.permission.kind, item.permission.rule.text) for item in gone}
        # Asked even if nothing stands here: another host may have written it, and the next start would find it.
        for found in await self.lock.forget(entry.id, kind, rule) if self.lock is not None else ():
            if (found.kind, found.rule) not in known:
                known.add((found.kind, found.rule))
                self._record(entry, found.kind, "forget", found.rule, True, None, "taken back", rule=found.rule)
        return len(known)

    async def admit(self, entry: PluginRecord, source: PluginSource) -> PluginSource:
        """Returns what may be started in the place of a source: what lies there now, if there is a lock file.

        Raises as `LockRecorder.admit`; that something waits is audited.
        """
        if self.lock is None:
            return source
        with self._telling(entry):
            source = await self.lock.admit(entry, source)
        self._watch(entry)
        return source

    async def record(self, entry: PluginRecord, source: PluginSource, runs: Callable[[], bool]) -> None:
        """Records what was admitted, now that it runs, if there is a lock file. Raises as `LockRecorder.record`."""
        if self.lock is not None:
            with self._telling(entry):
                await self.lock.record(entry, source, runs)

    async def approve(self, entry: PluginRecord) -> None:
        """Accepts what waits; see `PluginHost.approve`."""
        if self.lock is None:
            raise PluginStateError(entry.id, "this host has no lock file: nothing waits to be accepted")
        version = await self.lock.approve(entry)
        reason = f"version {version} is accepted"
        self._record(entry, "plugin", "accept", entry.source.folder, True, None, reason)

    @contextmanager
    def _telling(self, entry: PluginRecord) -> Iterator[None]:
        """Audits that something waits."""
        try:
            yield
        except (ContentChanged, UpdateWaiting) as error:
            self._record(entry, "plugin", "update", entry.source.folder, False, None, error.message)
            raise

    async def _put(
        self,
        approver: Approver,
        entry: PluginRecord,
        source: PluginSource,
        permission: OptionalPermission,
        question: Question,
    ) -> Approval:
        """Puts a question and acts on its answer. Runs as the host's own task."""
        kind, target = permission.kind, question.target
        self._record(entry, kind, "ask", target, True, None, f"asked: {question.why}" if question.why else "asked")
        answer = await answer_of(approver, question, self._timeout)
        if answer.verdict == "no":
            return self._answered_no(entry, permission, target, answer)
        places = entry.places(source)
        bound = permission.bind(places) or permission
        # The policy may have changed meanwhile.
        if (denied := denied_by(entry.policy.bind(places), kind, bound.rule)) is not None:
            return self._answered_no(entry, permission, target, Answer.no(denied))
        standing = entry.approvals.add(source, permission, answer, partial(self._used, entry, permission))
        self._take(entry, standing, target)
        if self.lock is not None and answer.verdict in ("until", "always"):
            try:
                await self.lock.keep(source, entry.approvals, standing)
            except (LockError, OSError) as error:
                _log.error("plugin %s: an approval holds for this host only: %s", entry.id, error)
        return standing.approval

    def _take(self, entry: PluginRecord, item: Standing, target: str) -> Standing:
        """Puts a new approval in force."""
        self._record(entry, item.permission.kind, "answer", target, True, item, item.by)
        renew(entry)
        self._watch(entry)
        return item

    def _answered_no(
        self, entry: PluginRecord, permission: OptionalPermission, target: str, answer: Answer
    ) -> Approval:
        reason = escape(answer.reason, MAX_REASON_LENGTH) or "the approver said no"
        self._record(entry, permission.kind, "answer", target, False, None, reason)
        return Approval(False, reason)

    def _refuse(self, entry: PluginRecord, kind: str, target: str, reason: str) -> Approval:
        """Refuses without asking anybody."""
        self._record(entry, kind, "ask", target, False, None, reason)
        return Approval(False, reason)

    def _used(self, entry: PluginRecord, permission: OptionalPermission) -> None:
        text = permission.rule.text
        self._record(entry, permission.kind, "use", text, True, None, "approved once: it is used up", rule=text)
        # Not now: this is called from within a decision.
        later(0, lambda: renew(entry))

    def _watch(self, entry: PluginRecord) -> None:
        entry.approvals.watch(partial(self._ended, entry))

    def _ended(self, entry: PluginRecord, gone: list[Standing]) -> None:
        for item in gone:
            permission = item.permission
            self._record(entry, permission.kind, "expire", permission.rule.text, True, item, "its time is over")
        renew(entry)

    def _record(
        self,
        entry: PluginRecord,
        kind: str,
        action: str,
        target: str,
        allowed: bool,
        item: Standing | None,
        reason: str,
        *,
        rule: str | None = None,
    ) -> None:
        sink = entry.counting(self._trail.sink)
        if sink is None:
            return
        text = item.permission.rule.text if item is not None else rule
        capability = _CAPABILITIES.get(kind, "plugin")
        sink(AuditEvent(time.time(), entry.id, capability, action, target, allowed, text, reason, "host", "approval"))


def lock_of(path: str | os.PathLike[str] | None) -> "LockRecorder | None":
    """Returns the lock file of a host, if it has one."""
    if path is None:
        return None
    from nyx_stream.host.lockfile.recorder import LockRecorder  # most hosts have none, and do without its models

    return LockRecorder(path)


def _find(manifest: Manifest, places: Places, kind: str, target: str) -> tuple[OptionalPermission, Rule] | str:
    """Returns the permission that a plugin asks for, and what it wants of it; or why there is none."""
    known = next((own for own in KINDS if own == kind), None)
    if known is None:
        return f"no permission of kind {escape(kind, 64)} can be asked for; there are {', '.join(KINDS)}"
    wanted = _wanted(places, known, target)
    if isinstance(wanted, str):
        return wanted
    for permission in manifest.optional:
        bound = permission.bind(places)
        if bound is not None and bound.covers(kind, wanted):
            return permission, wanted
    return "no optional permission of the plugin's manifest covers it"


def _wanted(places: Places, kind: OptionalKind, target: str) -> Rule | str:
    try:
        rule = parse_target(kind, target)
    except RuleError as error:
        return f"it is no {kind} rule: {escape(error.reason)}"
    bound = OptionalPermission(kind, rule).bind(places)
    return bound.rule if bound is not None else f"it is no {kind} rule: there is no such directory"


def _question(manifest: Manifest, permission: OptionalPermission, target: str, why: str) -> Question:
    said = permission.why
    return Question(
        plugin=manifest.id,
        version=manifest.version,
        kind=permission.kind,
        rule=escape(permission.rule.text),
        manifest_why=escape(said, MAX_REASON_LENGTH) if said else None,
        target=escape(target),
        why=escape(why, MAX_REASON_LENGTH),
    )
