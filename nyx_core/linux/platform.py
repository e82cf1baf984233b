"""Linux: its layers in the order that matters, and what to say of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nyx_core.layers import Platform
from nyx_core.linux import landlock, seccomp
from nyx_core.linux.capabilities import Capabilities
from nyx_core.linux.cgroup import Cgroup
from nyx_core.linux.environment import WipedEnvironment
from nyx_core.linux.namespaces import Namespaces
from nyx_core.linux.no_new_privs import NoNewPrivs
from nyx_core.linux.privileges import Privileges
from nyx_core.linux.usage import usage
from nyx_core.linux.witness import witness
from nyx_core.posix.descriptors import Descriptors
from nyx_core.posix.process import Process
from nyx_core.posix.rlimits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nyx_core.sandbox.confinement import Confinement


def platform() -> Platform:
    """The layers: what needs privileges first, then what reads /proc, then the locks, for those refuse the rest."""
    return _of(Descriptors(listed_in_proc), landlock.Landlock())


def prepared(wanted: Confinement) -> Platform:
    """The same, with a ruleset begun for what `wanted` and confinements like it have in common."""
    try:
        begun = landlock.Begun(wanted)
    except OSError:  # the layer will tell
        return platform()
    return _of(Descriptors(listed_in_proc, held=begun.held), landlock.Landlock(begun=begun))


def _of(descriptors: Descriptors, lock: landlock.Landlock) -> Platform:
    layers = (
        Process(),
        descriptors,
        WipedEnvironment(),
        Cgroup(),
        Namespaces(),
        Privileges(),
        Capabilities(),
        Limits(usage),
        NoNewPrivs(),
        lock,
        seccomp.Seccomp(),
    )
    return Platform("linux", layers, witness, facts, seccomp.posture, prepared)


def listed_in_proc() -> Iterable[int]:
    """Numbers in /proc/self/fd: exactly what is open, and the listing itself; raises `OSError` without /proc."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def facts() -> tuple[tuple[str, str], ...]:
    """The Landlock ABI and errata of the running kernel."""
    try:
        found = str(landlock.abi())
    except OSError:
        found = "none"
    errata = landlock.errata()
    return (("landlock_abi", found), ("landlock_errata", "unknown" if errata is None else f"{errata:#x}"))
