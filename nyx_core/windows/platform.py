"""Windows: its layers in order, the short ones among them, and what reports say of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.environment import Environment
from nyx_core.sandbox.platform import Platform
from nyx_core.sandbox.report import LayerReport, LayerState, WitnessResult
from nyx_core.windows.job_objects import JobObject

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

NOT_ENOUGH_QUOTA = 1816  # from CreateProcess if the job is full
ACCESS_DENIED = 5
CLOSED_BY_JOB = frozenset({"subprocess"})
REMEDY = "a process that is started in an AppContainer, or `access` in may_degrade, where the guard decides alone"


def platform() -> Platform:
    """The layers. What Windows can't do is reported first, before a job is entered in vain."""
    layers = (FileAccess(), WindowsProcess(), Environment(), JobObject())
    return Platform("windows", layers, witness, facts)


def facts() -> tuple[tuple[str, str], ...]:
    """The version, from the process itself instead of WMI. Jobs can be nested since 6.2, which is Windows 8."""
    version = "none"
    if sys.platform == "win32":
        found = sys.getwindowsversion()
        version = f"{found.major}.{found.minor}.{found.build}"
    return (("version", version),)


@dataclass(frozen=True, slots=True)
class FileAccess:
    """The layer that Windows lacks: it reports which files, sockets and native code stay open, and applies nothing.

    Windows can restrict these for a process that starts in an AppContainer, not for a running one.
    """

    name: str = "access"

    def probe(self) -> LayerReport:
        """Always unavailable."""
        reason = "a running process cannot give up files, sockets or native code"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Name what `wanted` closes and no layer enforces."""
        missing = unenforceable(wanted)
        if not missing:
            return LayerReport(self.name, LayerState.DISABLED, "nothing that Windows lacks was requested")
        reason = f"Windows cannot enforce this on a running process: {', '.join(missing)}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)


def unenforceable(wanted: Confinement) -> tuple[str, ...]:
    """What `wanted` requests and no layer of Windows enforces: closed axes, then the names of other fields."""
    fields = {
        "keep_descriptors": wanted.keep_descriptors is not None,
        "run_as": wanted.run_as is not None,
        "new_session": wanted.new_session,
        "namespaces": bool(wanted.namespaces),
        "cgroup": wanted.cgroup,
    }
    return (*sorted(wanted.closed - CLOSED_BY_JOB), *(name for name, requested in fields.items() if requested))


@dataclass(frozen=True, slots=True)
class WindowsProcess:
    """The layer that sets the umask and the working directory."""

    name: str = "process"

    def probe(self) -> LayerReport:
        """Always available."""
        return LayerReport(self.name, LayerState.ACTIVE, "umask and directory can be set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set them. Of the umask, the C library uses the owner's write bit only; access lists decide the rest."""
        os.umask(wanted.umask)
        done = f"umask {wanted.umask:03o}, of which Windows keeps the owner's write bit"
        if wanted.working_directory is not None:
            os.chdir(wanted.working_directory)
            done += ", working directory set"
        return LayerReport(self.name, LayerState.ACTIVE, done)


def witness(wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Try to start a process if the job should refuse that. A process that does start is killed at once."""
    in_force = any(report.name == "job_object" and report.state is LayerState.ACTIVE for report in applied)
    if wanted.subprocess or not in_force:
        return ()
    axis, act = "subprocess", "CreateProcess"
    try:
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    except OSError as error:
        code = getattr(error, "winerror", None)
        return (WitnessResult(axis, act, code in (NOT_ENOUGH_QUOTA, ACCESS_DENIED), str(code or error)),)
    child.kill()
    child.wait()
    return (WitnessResult(axis, act, False, "succeeded"),)
