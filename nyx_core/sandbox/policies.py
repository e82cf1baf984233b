"""The two ready-made policies of the guide, as confinements. Pure."""

from __future__ import annotations

from nyx_core.sandbox.confinement import Confinement, Network, SandboxPolicy

EVERYWHERE = ("/",)
MAY_DEGRADE = frozenset(
    {
        "namespaces",
        "cgroup",
        # Threads that exist already keep their capabilities; a host that confines itself late is told so, not refused.
        "capabilities",
        # The guide asks of macOS for rlimits, and for seatbelt where it can be had.
        "seatbelt",
        # The guide asks of Windows for the Job Object, which closes neither network nor files.
        "access",
    }
)
"""What the ready-made policies ask for and can do without; what is missing is logged as a warning."""


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
