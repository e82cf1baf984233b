"""Starts runs of plugins: checks the lock file, prepares grant, guard and leases, and starts the isolation backend."""

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.errors import ContentChanged, NyxError, PluginError, PluginLoadError, PluginStateError, UpdateWaiting
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.approvals.service import ApprovalService, lasting
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.observability.metrics import PendingUpdate
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.leases import LeaseSet
from nyx_stream.host.runtime.lifecycle import Event
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.isolation.backend import Assignment, PluginSource
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

if TYPE_CHECKING:  # a host without a lock file doesn't import its models
    from nyx_stream.host.lockfile.verification import LockRecorder, LockVerdict


class Starter:
    """Starts the plugins of one host.

    Args:
        audit: the host's audit trail.
        backends: the isolation backends.
        approvals: decides requests for optional permissions.
        lock: the host's lock file, if it has one.
        on_crash: called when a run fails after it was running.
    """

    def __init__(
        self,
        audit: AuditTrail,
        backends: Backends,
        approvals: ApprovalService,
        lock: "LockRecorder | None",
        on_crash: Callable[[PluginRecord, PluginRun, BaseException], None],
    ) -> None:
        self._audit = audit
        self._backends = backends
        self._approvals = approvals
        self._lock = lock
        self._on_crash = on_crash
        self._import_paths = ImportPaths()
        """Where the host's plugins are imported from; grows with each run."""

    async def load(self, record: PluginRecord) -> None:
        """Starts a run of a plugin that has none, under its leases if it has any; audited as a load.

        The caller holds `record.changing`. Raises as `verify`, `prepare` and `start`; the plugin has then failed.
        """
        try:
            record.source = await self.verify(record, record.source)
            run = self.prepare(record, record.source, record.policy, record.leases)
            record.set_run(run)
            await self.start(record, run)
        except PluginError as error:
            self._audit.record(record.id, "load", record.source.folder, error)
            raise
        self._audit.record(record.id, "load", record.source.folder)

    async def verify(self, record: PluginRecord, source: PluginSource) -> PluginSource:
        """Returns the source of the version on disk, if the lock file allows it to run; restores its approvals.

        Raises:
            ContentChanged, UpdateWaiting: it may not run; `record.waiting` has the update.
            LockError: the lock file is broken.
            ManifestError, PluginLoadError: the plugin can't be read.
        """
        if self._lock is None:
            return source
        removals = record.approvals.removals
        source, verdict = await self._lock.verify(source)
        self._require_accepted(record, verdict)
        record.waiting = None
        record.approvals.retain((record.source.content, source.content))
        if record.approvals.removals == removals:  # otherwise an approval in `verdict` may have been withdrawn since
            record.approvals.restore(source, verdict.found.approvals)
        self._approvals.schedule_expiry(record)
        return source

    def prepare(
        self, record: PluginRecord, source: PluginSource, policy: SandboxPolicy, leases: LeaseSet | None = None
    ) -> PluginRun:
        """Returns a run of `source` that isn't started yet; under new leases if none are given.

        Raises:
            PluginStateError: the host is closed, or its audit log can't record events.
        """
        self._backends.get(source.folder, record.isolation)
        self._audit.require_working(record.id)
        places, effective = record.places(source), record.effective_policy(source, policy)
        grant = Grant.of(source.manifest, effective, places)
        sink = record.counting_sink(self._audit.sink)
        guard = SandboxGuard(effective, manifest=source.manifest, places=places, audit=sink)
        self._import_paths.protect(source.imported_paths)
        if leases is None:
            leases = LeaseSet(record.id, policy, partial(self._record_lease, record.id), record.tally)
        return PluginRun(source, policy, grant, guard, leases, sink, record.count, partial(self._on_crash, record))

    async def start(self, record: PluginRecord, run: PluginRun) -> None:
        """Starts a run; returns when it takes calls, and is recorded in the lock file if the host has one.

        Raises:
            PluginLoadError, PluginSetupError, LockError: it didn't start, or wasn't recorded; it is cleaned up.
            PluginStateError: it was stopped meanwhile.
        """
        try:
            if any(rule.prefix.split("/")[0] == "$DATA" for rule in run.source.manifest.paths):
                await asyncio.to_thread(make_private_dir, record.data_dir)
            backend = self._backends.get(run.source.folder, record.isolation)  # the host may have closed meanwhile
            run.lifecycle.apply(Event.LOAD)
            assignment = Assignment(
                run.source,
                run.grant,
                run.guard,
                run.audit,
                run.leases.by_name,
                self._import_paths,
                crashed=run.crash,
                ask=partial(self._approvals.request, record, run.source),
            )
            await run.start(backend.isolate(assignment))
        except OSError as error:
            failure = PluginLoadError(record.id, f"its data directory can't be made: {error}")
            run.fail(failure)
            raise failure from error
        try:
            await self._record_start(record, run)
        except BaseException as error:
            if run.is_running and isinstance(error, NyxError):
                run.fail(error)
            await run.stop()
            raise

    async def accept_update(self, record: PluginRecord) -> None:
        """Accepts the update that the lock file holds back, and no other; see `PluginHost.approve`."""
        if self._lock is None:
            raise PluginStateError(record.id, "this host has no lock file, so no update is waiting")
        update = record.waiting
        if update is None:
            raise PluginStateError(record.id, "no update of it is waiting")
        await self._lock.accept(record.source, update.content)
        record.waiting = None
        self._record_update(record, "accept", f"version {update.version} is accepted")

    async def _record_start(self, record: PluginRecord, run: PluginRun) -> None:
        """Records the started version in the lock file, if there is one."""
        content = run.source.content
        if self._lock is None or content is None:
            return
        verdict = await self._lock.record(
            run.source, content, lambda: lasting(record.approvals.active(content)), lambda: run.is_running
        )
        self._require_accepted(record, verdict)

    def _require_accepted(self, record: PluginRecord, verdict: "LockVerdict") -> None:
        if verdict.refused is None:
            return
        record.waiting = PendingUpdate(verdict.found.version, verdict.found.content, verdict.refused)
        reason = f"{verdict.refused}; review it, then accept it with host.approve() or `nyx approve`"
        self._record_update(record, "update", reason, allowed=False)
        raise (ContentChanged if verdict.changed else UpdateWaiting)(record.id, reason)

    def _record_update(self, record: PluginRecord, action: str, reason: str, *, allowed: bool = True) -> None:
        self._approvals.record(record, "plugin", action, record.source.folder, reason, allowed=allowed)

    def _record_lease(self, plugin: str, action: str, capability: str, reason: str) -> None:
        self._audit.record(plugin, action, capability, reason=reason, kind="revocation")


def default_data_dir() -> str:
    """Returns the directory `nyx` in the platform's directory for the user's application data.

    Linux and BSD: `$XDG_DATA_HOME`, or `~/.local/share` (XDG Base Directory Specification); macOS:
    `~/Library/Application Support`; Windows: `%LOCALAPPDATA%`.
    """
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(base):  # the specification requires relative paths to be ignored
            base = os.path.join(home, ".local", "share")
    return os.path.join(base, "nyx")


def make_private_dir(path: str) -> None:
    """Makes the directory `path` if there is none, and removes other users' access to it.

    Raises:
        OSError: it can't be made, isn't a directory, or belongs to another user.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)  # not `stat`: a symbolic link here would lead the plugin's writes elsewhere
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is not a directory")
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(path, 0o700)
