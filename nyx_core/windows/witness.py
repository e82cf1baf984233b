"""Tries, after the job was entered, to start a process. What got through is told, and ended at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState, WitnessResult

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

NOT_ENOUGH_QUOTA = 1816  # CreateProcess, where the job is full
ACCESS_DENIED = 5


def witness(wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Start an interpreter that does nothing, if the job is in force and should refuse it."""
    in_force = any(report.name == "job_object" and report.state is LayerState.ACTIVE for report in applied)
    if wanted.subprocess or not in_force:
        return ()
    return (_start_a_process(),)


def _start_a_process() -> WitnessResult:
    axis, act = "subprocess", "CreateProcess"
    try:
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    except OSError as error:
        code = getattr(error, "winerror", None)
        refused = code in (NOT_ENOUGH_QUOTA, ACCESS_DENIED)
        return WitnessResult(axis, act, refused, str(code or error))
    child.kill()
    child.wait()
    return WitnessResult(axis, act, False, "succeeded")
