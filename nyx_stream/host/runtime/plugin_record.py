"""What a host keeps about one plugin, through reloads and failures."""

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nyx_stream.attribution import running
from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.capabilities.lease import Tally, new_tally
from nyx_stream.errors import PluginCrashed, PluginError, PluginStateError
from nyx_stream.host.approvals.store import ApprovalStore
from nyx_stream.host.observability.metrics import PluginMetrics, metrics_of
from nyx_stream.host.observability.status import OnFail, PluginStats, PluginStatus, Waiting
from nyx_stream.host.runtime.dispatcher import Dispatcher
from nyx_stream.host.runtime.leases import Leases
from nyx_stream.host.runtime.lifecycle import OVER, State
from nyx_stream.host.runtime.limits import CallCount
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.host.runtime.supervisor import Supervisor
from nyx_stream.isolation.backend import Level, PluginBackend, PluginSource
from nyx_stream.policy import Places, SandboxPolicy
from nyx_stream.policy.grant import Grant
from nyx_stream.text import escape

if TYPE_CHECKING:  # a host without a lock file does without its models
    from nyx_stream.host.lockfile.recorder import LockRecorder


@dataclass(eq=False)
class PluginRecord:
    """One plugin of one host."""

    source: PluginSource
    """Of the present life, or of the next one if there is none."""
    policy: SandboxPolicy
    isolation: Level
    on_fail: OnFail
    data: str
    policy_file: str | None = None
    life: PluginRun | None = None
    """The present life: it takes the calls."""
    dispatcher: Dispatcher | None = None
    """The present life's; kept here too, for every call asks for it."""
    leases: Leases | None = None
    """From loading to unloading, or to reloading; restarts after a crash go on under them."""
    coming: PluginRun | None = None
    """The life that a reload is starting."""
    leaving: "dict[PluginRun, asyncio.Task[None]]" = field(default_factory=dict)
    """The lives that finish their calls after a reload, and the tasks that see to it."""
    taken_back: list[tuple[str | None, str]] = field(default_factory=list)
    """What was revoked, and why, since a reload began: its life is to be without it."""
    unloaded: bool = False
    """Whether its host has forgotten it: only handles know it still."""
    approvals: ApprovalStore = field(default_factory=ApprovalStore)
    lock: "LockRecorder | None" = None
    """The host's lock file."""
    waiting: Waiting | None = None
    """What the lock file keeps from running."""
    denied: int = 0
    restarts: int = 0
    count: CallCount = field(default_factory=CallCount)
    tally: Tally = field(default_factory=new_tally)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the plugin is loaded, reloaded or unloaded: one such change at a time."""

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.source.manifest.id

    @property
    def supervisor(self) -> Supervisor | None:
        """The present life's."""
        return self.life.supervisor if self.life is not None else None

    @property
    def state(self) -> State:
        """Where it stands."""
        return State.DISCOVERED if self.supervisor is None else self.supervisor.state

    @property
    def over(self) -> bool:
        """Whether it has no life at present, and could be started."""
        return self.supervisor is None or self.supervisor.state in OVER

    @property
    def grant(self) -> Grant | None:
        """What the present life was granted."""
        return self.life.grant if self.life is not None else None

    @property
    def level(self) -> PluginBackend | None:
        """What the present life runs in."""
        return self.life.level if self.life is not None else None

    @property
    def lives(self) -> tuple[PluginRun, ...]:
        """Every life that has not ended for good, the present one first."""
        return tuple(life for life in (self.life, self.coming, *self.leaving) if life is not None)

    def places(self, source: PluginSource) -> Places:
        """What `$DATA` and `$PLUGIN` stand for."""
        return {"$DATA": self.data, "$PLUGIN": source.folder}

    def in_force(self, source: PluginSource, policy: SandboxPolicy) -> SandboxPolicy:
        """Returns what holds for a version of the plugin under a policy: that, and what was approved on top."""
        places = self.places(source)
        policy = self.approvals.over(policy, source, places)
        return policy if self.lock is None else self.lock.shielded(policy, places)

    def take(self, life: PluginRun) -> None:
        """Makes a life the present one: calls that begin from now on are its."""
        self.life, self.leases, self.source = life, life.leases, life.source
        self.dispatcher = life.supervisor.dispatcher

    def abandon(self) -> None:
        """Gives up on the life that a reload is starting."""
        if self.coming is not None:
            self.coming.supervisor.end()

    def alive(self) -> Supervisor:
        """Returns the supervisor. Raises `PluginStateError` if the plugin was never started."""
        if self.supervisor is None:
            raise PluginStateError(self.id, "it is not started")
        return self.supervisor

    def leased(self) -> Leases:
        """Returns the leases. Raises `PluginStateError` if the plugin was not started, or was stopped for good."""
        if self.leases is None:
            raise PluginStateError(self.id, f"it is {self.state}")
        return self.leases

    def end_leases(self) -> None:
        """Ends the leases with what they were granted for."""
        if self.leases is not None:
            self.leases.close()
            self.leases = None

    def must_run(self) -> None:
        """Raises `PluginError` if the plugin does not run."""
        if self.state is State.FAILED and self.supervisor is not None:
            raise PluginCrashed(self.id, "it has failed") from self.supervisor.error
        if self.state is not State.RUNNING:
            raise PluginStateError(self.id, f"it is {self.state}")

    def counting(self, sink: AuditSink | None) -> AuditSink | None:
        """Returns a sink that counts what is denied to this plugin and passes all on."""
        if sink is None:
            return None

        def record(event: AuditEvent) -> None:
            self.denied += not event.allowed
            token = running.set(None)  # decisions are made in the plugin's context; a sink is the host's
            try:
                sink(event)
            finally:
                running.reset(token)

        return record

    def status(self) -> PluginStatus:
        """Returns the listing of this plugin."""
        life = self.supervisor
        return PluginStatus(
            id=self.id,
            state=self.state,
            isolation=self.isolation,
            folder=self.source.folder,
            version=self.source.manifest.version,
            distribution=self.source.distribution,
            methods=dict(life.dispatcher.methods) if life is not None else None,
            error=life.reason if life is not None else None,
            traceback=life.traceback if life is not None else None,
            waiting=self.waiting,
        )

    def stats(self, *, audited: bool) -> PluginStats:
        """Returns the counts of this plugin."""
        count = self.count
        return PluginStats(
            calls=count.calls,
            failed=count.failed,
            timeouts=count.timeouts,
            refused=count.refused,
            active=sum(life.supervisor.dispatcher.active for life in self.lives),
            waiting=sum(life.supervisor.dispatcher.waiting for life in self.lives),
            seconds=count.seconds,
            denied=self.denied if audited else None,
            restarts=self.restarts,
        )

    def metrics(self, *, audited: bool) -> PluginMetrics:
        """Returns all that is measured about this plugin."""
        return metrics_of(
            self.id,
            self.source.manifest.version,
            self.isolation,
            self.state,
            self.stats(audited=audited),
            self.count,
            self.tally,
            None if self.over else self.level,
        )


def unreadable(where: str | os.PathLike[str], isolation: Level, error: Exception) -> PluginStatus:
    """Returns the listing of a plugin whose manifest cannot be read: its folder's name stands for its id."""
    folder = os.path.abspath(os.fspath(where))
    name = error.plugin if isinstance(error, PluginError) else os.path.basename(folder)
    return PluginStatus(escape(name), State.FAILED, isolation, folder, error=str(error))
