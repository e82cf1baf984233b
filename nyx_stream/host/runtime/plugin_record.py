"""The host's record of one plugin. It lasts from the first load until the unload, through runs and failures."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nyx_stream.attribution import running
from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.capabilities.lease import LeaseStatus, Tally, new_tally
from nyx_stream.errors import PluginCrashed, PluginStateError
from nyx_stream.host.approvals.store import ApprovalStore
from nyx_stream.host.observability.metrics import (
    CallCount,
    OnFail,
    PendingUpdate,
    PluginMetrics,
    PluginStats,
    PluginStatus,
    State,
)
from nyx_stream.host.runtime.dispatcher import Dispatcher
from nyx_stream.host.runtime.leases import LeaseSet
from nyx_stream.host.runtime.lifecycle import FINAL
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.isolation.backend import Level, Measured, PluginSource
from nyx_stream.policy import Places, SandboxPolicy
from nyx_stream.policy.grant import Grant

if TYPE_CHECKING:  # a host without a lock file doesn't import its models
    from nyx_stream.host.lockfile.verification import LockRecorder


@dataclass(eq=False)
class PluginRecord:
    """One plugin of one host."""

    source: PluginSource
    """The version of the current run, or of the next one if there is none."""
    policy: SandboxPolicy
    """What the operator granted, without approvals."""
    isolation: Level
    on_fail: OnFail
    data_dir: str
    """The plugin's private data directory."""
    policy_file: str | None = None
    """Where `policy` was read from."""
    lock: "LockRecorder | None" = None
    """The host's lock file."""
    run: PluginRun | None = None
    """The current run. It takes the calls."""
    dispatcher: Dispatcher | None = None
    """The dispatcher of the current run, here because every call needs it."""
    next_run: PluginRun | None = None
    """The run that a reload is starting."""
    draining: "dict[PluginRun, asyncio.Task[None]]" = field(default_factory=dict)
    """The runs that finish their calls after a reload, with the tasks that end them."""
    leases: LeaseSet | None = None
    """They last from loading to unloading or reloading. A restart after a crash continues under them."""
    revoked: list[tuple[str | None, str]] = field(default_factory=list)
    """The revocations since the last reload began, with their reasons. They apply to the run that it starts."""
    unloaded: bool = False
    """Whether the host has dropped this record. Handles may still have it."""
    approvals: ApprovalStore = field(default_factory=ApprovalStore)
    waiting: PendingUpdate | None = None
    """The update that the lock file holds back."""
    denied: int = 0
    restarts: int = 0
    count: CallCount = field(default_factory=CallCount)
    tally: Tally = field(default_factory=new_tally)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the plugin is loaded, reloaded, restarted or unloaded: one such operation at a time."""

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.source.manifest.id

    @property
    def state(self) -> State:
        """The state of the current run."""
        return State.DISCOVERED if self.run is None else self.run.state

    @property
    def is_active(self) -> bool:
        """Whether the plugin is starting or running."""
        return self.state in (State.STARTING, State.RUNNING)

    @property
    def is_over(self) -> bool:
        """Whether the current run has ended, or was never started, so that another can start."""
        return self.run is None or self.run.state in FINAL

    @property
    def runs(self) -> tuple[PluginRun, ...]:
        """Every run that may live, the current one first."""
        return tuple(run for run in (self.run, self.next_run, *self.draining) if run is not None)

    def require_run(self) -> PluginRun:
        """Returns the current run. Raises `PluginStateError` if the plugin was never started."""
        if self.run is None:
            raise PluginStateError(self.id, "it is not started")
        return self.run

    def require_running(self) -> None:
        """Raises `PluginError` if the plugin doesn't run."""
        if self.state is State.FAILED and self.run is not None:
            raise PluginCrashed(self.id, "it has failed") from self.run.error
        if self.state is not State.RUNNING:
            raise PluginStateError(self.id, f"it is {self.state}")

    def require_leases(self) -> LeaseSet:
        """Returns the leases. Raises `PluginStateError` if the plugin was not started, or was unloaded."""
        if self.leases is None:
            raise PluginStateError(self.id, f"it is {self.state}")
        return self.leases

    def set_run(self, run: PluginRun) -> None:
        """Makes a run the current one: it takes further calls."""
        self.run, self.leases, self.source = run, run.leases, run.source
        self.dispatcher = run.dispatcher

    def cancel_next_run(self) -> None:
        """Ends the run that a reload is starting."""
        if self.next_run is not None:
            self.next_run.request_stop()

    async def stop_draining(self) -> None:
        """Ends at once the runs that finish their calls after a reload."""
        for run in self.draining:
            run.request_stop()
        if self.draining:
            await asyncio.wait(tuple(self.draining.values()))

    def close_leases(self) -> None:
        """Ends the leases together with their grant."""
        if self.leases is not None:
            self.leases.close()
            self.leases = None

    def revoke(self, capability: str | None, reason: str) -> None:
        """Ends the leases of every run, and of a run that a reload is about to start."""
        self.require_leases().revoke(capability, reason)
        self.revoked.append((capability, reason))
        for run in self.runs[1:]:
            run.leases.end(capability, reason)

    def set_lease_terms(self, capability: str, terms: Mapping[str, object]) -> LeaseStatus:
        """Sets terms of a lease in every run. Raises as `LeaseSet.set_terms`."""
        status = self.require_leases().set_terms(capability, terms)
        for run in self.runs[1:]:
            run.leases.copy_terms(capability, terms)
        return status

    def places(self, source: PluginSource) -> Places:
        """Returns the paths of `$DATA` and `$PLUGIN`."""
        return {"$DATA": self.data_dir, "$PLUGIN": source.folder}

    def effective_policy(self, source: PluginSource, policy: SandboxPolicy) -> SandboxPolicy:
        """Returns the policy for a version of the plugin, with approvals added and the lock file denied."""
        places = self.places(source)
        policy = self.approvals.extend(policy, source, places)
        return policy if self.lock is None else self.lock.deny_lock_file(policy, places)

    def apply_policy(self, policy: SandboxPolicy, policy_file: str | None) -> None:
        """Puts another policy in force in all runs, and in those that start later."""
        self._apply_policies(dict.fromkeys(self.runs, policy))
        self.policy, self.policy_file = policy, policy_file

    def refresh_policy(self) -> None:
        """Puts the current approvals in force in all runs, each under the policy that it has."""
        self._apply_policies({run: run.policy for run in self.runs})

    def _apply_policies(self, policies: Mapping[PluginRun, SandboxPolicy]) -> None:
        changes = []
        for run, policy in policies.items():  # computed for all runs before any changes: an error changes nothing
            effective = self.effective_policy(run.source, policy)
            grant = Grant.of(run.source.manifest, effective, self.places(run.source))
            changes.append((run, policy, effective, grant))
        for run, policy, effective, grant in changes:
            run.apply_policy(policy, effective, grant)

    def counting_sink(self, sink: AuditSink | None) -> AuditSink | None:
        """Returns a sink that counts the denials of this plugin and passes every event on."""
        if sink is None:
            return None

        def record(event: AuditEvent) -> None:
            self.denied += not event.allowed
            token = running.set(None)  # decisions are made in the plugin's context; the sink belongs to the host
            try:
                sink(event)
            finally:
                running.reset(token)

        return record

    def status(self) -> PluginStatus:
        """Returns the status of this plugin."""
        run = self.run
        return PluginStatus(
            id=self.id,
            state=self.state,
            isolation=self.isolation,
            folder=self.source.folder,
            version=self.source.manifest.version,
            distribution=self.source.distribution,
            methods=dict(run.dispatcher.methods) if run is not None else None,
            error=run.reason if run is not None else None,
            traceback=run.traceback if run is not None else None,
            waiting=self.waiting,
        )

    def stats(self, *, audited: bool) -> PluginStats:
        """Returns the counts of this plugin; `audited` is whether denials are recorded, and so counted."""
        count, runs = self.count, self.runs
        return PluginStats(
            calls=count.calls,
            failed=count.failed,
            timeouts=count.timeouts,
            refused=count.refused,
            active=sum(run.dispatcher.active for run in runs),
            waiting=sum(run.dispatcher.waiting for run in runs),
            seconds=count.seconds,
            denied=self.denied if audited else None,
            restarts=self.restarts,
        )

    def metrics(self, *, audited: bool) -> PluginMetrics:
        """Returns the metrics of this plugin. Can be called on any thread."""
        backend: object = None if self.run is None or self.is_over else self.run.backend
        usage = backend.usage() if isinstance(backend, Measured) else None
        return PluginMetrics(
            plugin=self.id,
            version=self.source.manifest.version,
            isolation=self.isolation,
            state=self.state,
            stats=self.stats(audited=audited),
            latency=self.count.latency(),
            requests=self.tally["requests"],
            opens=self.tally["opens"],
            bytes_in=self.tally["bytes_in"],
            bytes_out=self.tally["bytes_out"],
            memory=usage.memory if usage is not None else None,
            cpu_seconds=usage.cpu_seconds if usage is not None else None,
        )
