"""Linux: its layers in order, and what reports say of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nyx_core.linux import landlock, libc, seccomp
from nyx_core.linux.cgroup import Cgroup
from nyx_core.linux.namespaces import Namespaces
from nyx_core.linux.privileges import Capabilities, LinuxPrivileges, NoNewPrivs
from nyx_core.linux.procfs import environment_block, open_descriptors, rlimit_usage
from nyx_core.linux.witness import witness
from nyx_core.posix.descriptors import Descriptors
from nyx_core.posix.process import PosixProcess
from nyx_core.posix.rlimits import Rlimits
from nyx_core.sandbox.environment import Environment
from nyx_core.sandbox.platform import Platform

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement


def platform() -> Platform:
    """The layers. First those that need privileges, then those that read /proc, then the locks, which refuse both."""
    return _platform(Descriptors(open_descriptors), landlock.Landlock())


def prepared(wanted: Confinement) -> Platform:
    """The same, with a Landlock ruleset that has the rules which `wanted` and similar confinements share."""
    try:
        ruleset = landlock.PreparedRuleset(wanted)
    except OSError:  # the layer will report it
        return platform()
    return _platform(Descriptors(open_descriptors, held=ruleset.held), landlock.Landlock(prepared=ruleset))


def _platform(descriptors: Descriptors, lock: landlock.Landlock) -> Platform:
    layers = (
        PosixProcess(),
        descriptors,
        Environment(erase_environment),
        Cgroup(),
        Namespaces(),
        LinuxPrivileges(),
        Capabilities(),
        Rlimits(rlimit_usage),
        NoNewPrivs(),
        lock,
        seccomp.Seccomp(),
    )
    return Platform("linux", layers, witness, facts, prepared, seccomp.posture)


def erase_environment() -> int | None:
    """Remove every variable, and overwrite the block that /proc/self/environ shows. Returns its size, if it's found."""
    start, end = environment_block()
    os.environ.clear()
    # Entries without "=" were never in os.environ. Once nothing points into the block, it can be overwritten.
    libc.clear_environment()
    if not 0 < start <= end:
        return None
    libc.wipe(start, end)
    return end - start


def facts() -> tuple[tuple[str, str], ...]:
    """The Landlock ABI and errata of the running kernel."""
    try:
        found = str(landlock.abi())
    except OSError:
        found = "none"
    errata = landlock.errata()
    return (("landlock_abi", found), ("landlock_errata", "unknown" if errata is None else f"{errata:#x}"))
