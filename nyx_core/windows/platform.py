"""Windows: its layers in the order that matters, and what to say of the host."""

from __future__ import annotations

import sys

from nyx_core.layers import Platform
from nyx_core.posix.announced import announced_posture
from nyx_core.posix.environment import Environment
from nyx_core.windows.access import Access
from nyx_core.windows.job_objects import JobObject
from nyx_core.windows.process import Process
from nyx_core.windows.witness import witness


def platform() -> Platform:
    """The order: what is missing is told first, before a job is entered in vain."""
    layers = (Access(), Process(), Environment(), JobObject())
    return Platform("windows", layers, witness, facts, announced_posture)


def facts() -> tuple[tuple[str, str], ...]:
    """The version, asked of the process itself, not of WMI; jobs nest since 6.2, which is Windows 8."""
    version = "none"
    if sys.platform == "win32":
        found = sys.getwindowsversion()
        version = f"{found.major}.{found.minor}.{found.build}"
    return (("version", version),)
