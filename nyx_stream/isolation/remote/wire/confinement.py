"""What a worker must apply to itself before it runs its plugin, and which of that this machine lacks."""

import math
import os
import socket
import sys
from dataclasses import replace

from nyx_core.sandbox import Confinement, LayerState, Limit, Network, ResourceLimits, probe
from nyx_stream import text
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.isolation.remote.wire.messages import MAX_PASSED_DESCRIPTORS
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.limits import Limits

CHANNEL = 3
"""The descriptor of a worker's channel; 0 to 2 are the standard streams."""
DESCRIPTORS = (0, 1, 2, CHANNEL)

FRAMEWORK = os.path.dirname(os.path.abspath(text.__file__))
"""The directory of `nyx_stream`."""

NO_LAYERS = "kernel"
"""Stands for the missing confinement on a system that `nyx_core` has no layers for."""

_EVERYWHERE = frozenset({"descriptors", "environment", "limits"})
_BY_SYSTEM = {
    "linux": frozenset({"capabilities", "no_new_privs", "landlock", "seccomp"}),
    "darwin": frozenset({"seatbelt"}),
    "openbsd": frozenset({"pledge"}),
}
_OPTIONAL = frozenset({"namespaces", "cgroup"})

_OWN_DESCRIPTORS = 8
"""Descriptors of the worker itself (`DESCRIPTORS` and its event loop's), on top of the grant."""
_OWN_CPU_SECONDS = 2
"""Processor time that a worker needs to start, on top of the grant. Most without a zygote."""


def required_layers(platform: str) -> frozenset[str]:
    """Returns the layers without which a worker on a `sys.platform` isn't sealed."""
    layers = next((layers for name, layers in _BY_SYSTEM.items() if platform.startswith(name)), frozenset({NO_LAYERS}))
    return _EVERYWHERE | layers


REQUIRED_LAYERS = required_layers(sys.platform)


def missing_layers() -> tuple[tuple[str, str], ...]:
    """Returns the required layers that can't be applied here, each with the reason and what would provide it."""
    survey = probe()
    missing = []
    for name in sorted(REQUIRED_LAYERS):
        layer = survey.layer(name)
        if layer is None:
            missing.append((name, f"there is none for {sys.platform}"))
        elif layer.state is not LayerState.ACTIVE:
            missing.append((name, f"{layer.reason}; needs {layer.remedy}" if layer.remedy else layer.reason))
    return tuple(missing)


def missing_sockets() -> str:
    """Returns what this system lacks to run any worker, even an unsealed one; empty if it lacks nothing."""
    if hasattr(socket, "AF_UNIX") and hasattr(socket, "SCM_RIGHTS") and hasattr(socket.socket, "sendmsg"):
        return ""
    return f"{sys.platform} has no Unix sockets that pass descriptors (SCM_RIGHTS), and a worker gets its files by them"


def cpu_seconds(limits: Limits) -> int:
    """Returns the processor time of a worker under `limits`, in the whole seconds that the system counts in."""
    return math.ceil(limits.cpu_time) + _OWN_CPU_SECONDS


def confinement_of(source: PluginSource, grant: Grant) -> Confinement:
    """Returns what a worker is ordered to apply to itself, except for its memory limit (`with_memory`).

    It may read the interpreter, the installed packages, the framework and the plugin's code. It may write nothing and
    open no socket. Everything else that a grant allows comes from the host, as descriptors.
    """
    limits = grant.limits
    cpu = cpu_seconds(limits)
    return Confinement(
        limits=ResourceLimits(
            memory=None,
            open_files=Limit.of(limits.open_files + _passed_descriptors(grant) + _OWN_DESCRIPTORS),
            processes=Limit.of(limits.processes),
            cpu_seconds=Limit(cpu, cpu + 1),  # first SIGXCPU, which names the cause; SIGKILL if that is ignored
        ),
        readable=tuple(dict.fromkeys((source.folder, source.root, FRAMEWORK))),
        network=Network.none(),
        environment=grant.env,
        keep_descriptors=DESCRIPTORS,
        working_directory="/",
        new_session=True,
        may_degrade=REQUIRED_LAYERS | _OPTIONAL if grant.policy.degrade == "allow" else _OPTIONAL,
    )


def with_memory(confinement: Confinement, memory: int) -> Confinement:
    """Returns a confinement with a memory limit in bytes."""
    return replace(confinement, limits=replace(confinement.limits, memory=Limit.of(memory)))


def _passed_descriptors(grant: Grant) -> int:
    """Returns how many descriptors the host may pass besides open files.

    A connection takes one for its bytes and one to be released by, an HTTP exchange one for each body; whole reads,
    writes and listings take one while they last. A worker without a free descriptor to receive one is ended.
    """
    manifest = grant.manifest
    network = 4 * grant.limits.connections if manifest.connect or manifest.request else 0
    return network + (MAX_PASSED_DESCRIPTORS if manifest.paths or network else 0)
