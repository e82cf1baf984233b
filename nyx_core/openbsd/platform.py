"""OpenBSD: its layers in the order that matters, and what to say of the host."""

from __future__ import annotations

import platform as host
from functools import partial

from nyx_core.layers import Platform
from nyx_core.openbsd.pledge import Pledge
from nyx_core.posix.announced import announced_posture
from nyx_core.posix.descriptors import Descriptors, below_the_hard_limit
from nyx_core.posix.environment import Environment
from nyx_core.posix.measured import usage
from nyx_core.posix.privileges import Privileges
from nyx_core.posix.process import Process
from nyx_core.posix.python_paths import python_paths
from nyx_core.posix.rlimits import Limits
from nyx_core.posix.witness import witness


def platform() -> Platform:
    """The order: setrlimit(2), setuid(2) and setsid(2) need promises that are not made, so pledge is the
    last.
    """
    layers = (
        Process(),
        Descriptors(below_the_hard_limit),
        Environment(),
        Privileges(),
        Limits(usage),
        Pledge(python_paths),
    )
    return Platform("openbsd", layers, partial(witness, "pledge"), facts, announced_posture)


def facts() -> tuple[tuple[str, str], ...]:
    """The release, which decides what pledge knows."""
    return (("release", host.release()),)
