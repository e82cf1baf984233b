"""From a plugin's source and a policy to a life that takes calls. Knows nothing of what it replaces."""

import asyncio
from collections.abc import Callable
from functools import partial

from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.errors import NyxError, PluginError, PluginLoadError
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.approvals.service import ApprovalService
from nyx_stream.host.data_dir import make_private
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.leases import Leases
from nyx_stream.host.runtime.lifecycle import Event
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.host.runtime.supervisor import Supervisor
from nyx_stream.isolation.backend import Assignment, PluginSource
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

Crashed = Callable[[PluginRecord, PluginRun, BaseException], None]


class Starter:
    """Makes lives for the plugins of one host and starts them.

    Args:
        trail: where the host's events go.
        levels: the isolation levels.
        import_paths: where the host's plugins are imported from; grows with each life.
        crashed: called when a life fails that took calls.
        desk: where plugins ask, and what may be started at all.
    """

    def __init__(
        self, trail: AuditTrail, levels: Backends, import_paths: ImportPaths, crashed: Crashed, desk: ApprovalService
    ) -> None:
        self._trail = trail
        self._levels = levels
        self._import_paths = import_paths
        self._crashed = crashed
        self._desk = desk

    async def admit(self, entry: PluginRecord, source: PluginSource) -> PluginSource:
        """Returns what may be started; see `ApprovalService.admit`."""
        return await self._desk.admit(entry, source)

    def prepare(
        self, entry: PluginRecord, source: PluginSource, policy: SandboxPolicy, leases: Leases | None = None
    ) -> PluginRun:
        """Returns a life of `source`, of which nothing runs yet; under new leases, unless some are given.

        Raises:
            PluginStateError: the host takes no plugins: it is closed, or its log takes no events.
        """
        self._levels.get(source.folder, entry.isolation)
        self._trail.must_take(entry.id)
        places, whole = entry.places(source), entry.in_force(source, policy)
        grant = Grant.of(source.manifest, whole, places)
        audit = entry.counting(self._trail.sink)
        guard = SandboxGuard(whole, manifest=source.manifest, places=places, audit=audit)
        self._import_paths.protect(source.imported_paths)
        supervisor = Supervisor(entry.id, grant.limits, entry.count, lambda error: self._crashed(entry, life, error))
        if leases is None:
            leases = Leases(entry.id, policy, partial(self._leased, entry.id), entry.tally)
        life = PluginRun(source, policy, grant, guard, leases, supervisor, audit)
        return life

    async def load(self, entry: PluginRecord) -> None:
        """Gives an entry that has none a life, under its leases if it has some; recorded as a load.

        Call it with `entry.changing` held. Raises as `prepare` and `start`; the entry is then failed.
        """
        try:
            entry.source = await self.admit(entry, entry.source)
            life = self.prepare(entry, entry.source, entry.policy, entry.leases)
            entry.take(life)
            await self.start(entry, life)
        except PluginError as error:
            self._trail.record(entry.id, "load", entry.source.folder, error)
            raise
        self._trail.record(entry.id, "load", entry.source.folder)

    async def start(self, entry: PluginRecord, life: PluginRun) -> None:
        """Starts a life; returns when it takes calls, and is recorded where the host has a lock file.

        Raises:
            PluginLoadError, PluginSetupError, LockError: it does not, or is not; nothing of it is left.
            PluginStateError: it was stopped meanwhile.
        """
        supervisor = life.supervisor
        try:
            if any(rule.prefix.split("/")[0] == "$DATA" for rule in life.source.manifest.paths):
                await asyncio.to_thread(make_private, entry.data)
            factory = self._levels.get(life.source.folder, entry.isolation)  # the host may have closed meanwhile
            supervisor.life.happen(Event.LOAD)
            life.level = factory.isolate(
                Assignment(
                    life.source,
                    life.grant,
                    life.guard,
                    life.audit,
                    life.leases.by_name,
                    self._import_paths,
                    crashed=supervisor.crash,
                    ask=partial(self._desk.ask, entry, life.source),
                )
            )
            await supervisor.start(life.level)
        except OSError as error:
            failure = PluginLoadError(entry.id, f"its data directory cannot be made: {error}")
            supervisor.fail(failure)
            raise failure from error
        try:
            await self._desk.record(entry, life.source, lambda: life.running)
        except BaseException as error:
            if life.running and isinstance(error, NyxError):
                supervisor.fail(error)
            await supervisor.stop()
            raise

    def _leased(self, plugin: str, action: str, capability: str, reason: str) -> None:
        self._trail.record(plugin, action, capability, reason=reason, kind="revocation")
