"""What a host keeps about one plugin, through reloads and failures."""

import asyncio
import os
from dataclasses import dataclass, field

from nyx_stream.attribution import running
from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.capabilities.meter import Tally, new_tally
from nyx_stream.errors import PluginCrashed, PluginError, PluginStateError
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.calls import CallCount
from nyx_stream.host.leases import Leases
from nyx_stream.host.lifecycle import OVER, State
from nyx_stream.host.metrics import PluginMetrics, metrics_of
from nyx_stream.host.status import OnFail, PluginStats, PluginStatus
from nyx_stream.host.supervisor import Supervisor
from nyx_stream.isolation.seam import Isolation, Level, PluginSource
from nyx_stream.policy import Places, SandboxPolicy
from nyx_stream.policy.grant import Grant
from nyx_stream.text import escape


@dataclass
class Entry:
    """One plugin of one host. `supervisor`, `guard`, `level` and `grant` belong to its present life, if it has one."""

    source: PluginSource
    policy: SandboxPolicy
    isolation: Level
    on_fail: OnFail
    data: str
    policy_file: str | None = None
    supervisor: Supervisor | None = None
    guard: SandboxGuard | None = None
    level: Isolation | None = None
    grant: Grant | None = None
    leases: Leases | None = None
    """From loading to unloading, or to reloading; restarts after a crash go on under them."""
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
    def state(self) -> State:
        """Where it stands."""
        return State.DISCOVERED if self.supervisor is None else self.supervisor.state

    @property
    def over(self) -> bool:
        """Whether it has no life at present, and could be started."""
        return self.supervisor is None or self.supervisor.state in OVER

    @property
    def places(self) -> Places:
        """What `$DATA` and `$PLUGIN` stand for."""
        return {"$DATA": self.data, "$PLUGIN": self.source.folder}

    @property
    def wants_data(self) -> bool:
        """Whether the plugin asks for anything in its data directory."""
        return any(rule.prefix.split("/")[0] == "$DATA" for rule in self.source.manifest.paths)

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

    def running(self) -> tuple[Isolation, SandboxGuard]:
        """Returns level and guard of a running plugin. Raises `PluginError` if it does not run."""
        if self.state is State.FAILED and self.supervisor is not None:
            raise PluginCrashed(self.id, "it has failed") from self.supervisor.error
        if self.state is not State.RUNNING or self.level is None or self.guard is None:
            raise PluginStateError(self.id, f"it is {self.state}")
        return self.level, self.guard

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
            methods=dict(life.methods) if life is not None else None,
            error=life.reason if life is not None else None,
            traceback=life.traceback if life is not None else None,
        )

    def stats(self, *, audited: bool) -> PluginStats:
        """Returns the counts of this plugin."""
        life, count = self.supervisor, self.count
        return PluginStats(
            calls=count.calls,
            failed=count.failed,
            timeouts=count.timeouts,
            refused=count.refused,
            active=life.active if life is not None else 0,
            waiting=life.waiting if life is not None else 0,
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
