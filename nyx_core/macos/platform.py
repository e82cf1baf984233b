"""macOS: its layers in the order that matters, and what to say of the host."""

from __future__ import annotations

import platform as host
from functools import partial

from nyx_core.layers import Platform
from nyx_core.macos.seatbelt import Seatbelt
from nyx_core.posix.announced import announced_posture
from nyx_core.posix.descriptors import Descriptors, listed_in_dev_fd
from nyx_core.posix.environment import Environment
from nyx_core.posix.measured import usage
from nyx_core.posix.privileges import Privileges
from nyx_core.posix.process import Process
from nyx_core.posix.python_paths import python_paths
from nyx_core.posix.rlimits import Limits
from nyx_core.posix.witness import witness


def platform() -> Platform:
    """The order: seatbelt is the last, since what comes before it may need what it refuses."""
    layers = (
        Process(),
        Descriptors(listed_in_dev_fd),
        Environment(),
        Privileges(),
        Limits(usage),
        Seatbelt(python_paths),
    )
    return Platform("macos", layers, partial(witness, "seatbelt"), facts, announced_posture)


def facts() -> tuple[tuple[str, str], ...]:
    """The release, which decides what seatbelt knows."""
    return (("macos", host.mac_ver()[0]),)
