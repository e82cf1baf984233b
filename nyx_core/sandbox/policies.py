"""The two ready-made policies of the guide, as confinements. Pure."""

from __future__ import annotations

from nyx_core.sandbox.confinement import Confinement, Network, SandboxPolicy

EVERYWHERE = ("/",)
# Threads that exist already keep their capabilities; a host that confines itself late is told so, not refused.
MAY_DEGRADE = frozenset({"namespaces", "cgroup", "capabilities"})


def confinement_for(policy: SandboxPolicy) -> Confinement:
    """MINIMAL: no new processes, everything else as before. STRICT: nor sockets, nor changes to files."""
    if policy is SandboxPolicy.MINIMAL:
        return Confinement(
            readable=EVERYWHERE,
            writable=EVERYWHERE,
            executable=EVERYWHERE,
            network=Network.unrestricted(),
            ipc=True,
            environment=None,
            keep_descriptors=None,
            capabilities=True,
            may_degrade=MAY_DEGRADE,
            policy=policy,
        )
    return Confinement(
        readable=EVERYWHERE,
        executable=EVERYWHERE,
        environment=None,
        keep_descriptors=None,
        may_degrade=MAY_DEGRADE,
        policy=policy,
    )
