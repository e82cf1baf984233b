"""macOS: its layers in order, and what reports say of the host."""

from __future__ import annotations

import platform as platform_info
from functools import partial

from nyx_core.macos.seatbelt import Seatbelt
from nyx_core.posix.descriptors import Descriptors, listed_in_dev_fd
from nyx_core.posix.process import PosixProcess, Privileges, python_paths
from nyx_core.posix.rlimits import Rlimits, psutil_usage
from nyx_core.posix.witness import witness
from nyx_core.sandbox.environment import Environment
from nyx_core.sandbox.platform import Platform


def platform() -> Platform:
    """The layers. Seatbelt is the last, because the others may need what it refuses."""
    layers = (
        PosixProcess(),
        Descriptors(listed_in_dev_fd),
        Environment(),
        Privileges(),
        Rlimits(psutil_usage),
        Seatbelt(python_paths),
    )
    return Platform("macos", layers, partial(witness, "seatbelt"), facts)


def facts() -> tuple[tuple[str, str], ...]:
    """The release, on which the rules of seatbelt depend."""
    return (("macos", platform_info.mac_ver()[0]),)
