"""OpenBSD: its layers in order, and what reports say of the host."""

from __future__ import annotations

import platform as platform_info
from functools import partial

from nyx_core.openbsd.pledge import Pledge
from nyx_core.posix.descriptors import Descriptors, below_the_hard_limit
from nyx_core.posix.process import PosixProcess, Privileges, python_paths
from nyx_core.posix.rlimits import Rlimits, psutil_usage
from nyx_core.posix.witness import witness
from nyx_core.sandbox.environment import Environment
from nyx_core.sandbox.platform import Platform


def platform() -> Platform:
    """The layers. Pledge is the last, because setrlimit(2), setuid(2) and setsid(2) need promises it doesn't make."""
    layers = (
        PosixProcess(),
        Descriptors(below_the_hard_limit),
        Environment(),
        Privileges(),
        Rlimits(psutil_usage),
        Pledge(python_paths),
    )
    return Platform("openbsd", layers, partial(witness, "pledge"), facts)


def facts() -> tuple[tuple[str, str], ...]:
    """The release, on which the promises of pledge depend."""
    return (("release", platform_info.release()),)
