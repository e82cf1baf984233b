"""One life of a plugin: one version of it under one grant, from before its start until nothing of it is left."""

from dataclasses import dataclass

from nyx_stream.audit import AuditSink
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.runtime.leases import Leases
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.supervisor import Supervisor
from nyx_stream.isolation.backend import PluginBackend, PluginSource
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant


@dataclass(eq=False)
class PluginRun:
    """What belongs to one life. `level` is there once the life has begun."""

    source: PluginSource
    policy: SandboxPolicy
    """What its operator granted, without what was approved on top. During a reload the lives have different ones."""
    grant: Grant
    guard: SandboxGuard
    leases: Leases
    """Those of its version: a life after a crash goes on under the leases of the one before."""
    supervisor: Supervisor
    audit: AuditSink | None
    level: PluginBackend | None = None

    @property
    def running(self) -> bool:
        """Whether it takes calls, or finishes those that it took."""
        return self.supervisor.state is State.RUNNING

    def govern(self, policy: SandboxPolicy, whole: SandboxPolicy, grant: Grant) -> None:
        """Puts another policy in force; `whole` has what was approved on top. The next check sees all of it."""
        self.leases.follow(self.guard.policy, whole)
        self.guard.update(whole)
        self.policy, self.grant = policy, grant
        if self.running and self.level is not None:
            self.level.update(grant)
            self.supervisor.dispatcher.resize(grant.limits)
