"""Puts this process into a Job Object of its own: kill-on-close, alone, a memory limit, no user interface.

What the job is told is decided in `job_wish`. Source: learn.microsoft.com, "Job Objects" and "Nested Jobs".

Who owns the handle decides over life and death. Closing the last handle of a kill-on-close job ends every
process in it. So the job is private and complete before it is assigned, assigning is the last step that may
fail, a job that did not get the process is closed, and the handle of a job that did get it is never closed:
it belongs to the process and goes with it. Threads that race each make a job of their own; whoever loses
closes one that holds nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState
from nyx_core.windows.job_records import (
    BASIC_UI_RESTRICTIONS,
    EXTENDED_LIMITS,
    UI_RESTRICTIONS,
    JobLimits,
    limits_record,
    limits_size,
    memory_record,
    read_committed,
    read_limits,
    read_ui,
    ui_record,
)
from nyx_core.windows.job_wish import Wish, in_force, wish_for
from nyx_core.windows.win32 import ACCESS_DENIED, Kernel32, Win32Error, system_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement

NESTED = "no user interface restrictions: the process is in an outer job, and a nested job may have none"


class JobMismatchError(OSError):
    """The system took the limits of a job and keeps others."""


@dataclass(frozen=True, slots=True)
class JobObject:
    """The layer. `open_kernel` opens the library whose calls are made."""

    open_kernel: Callable[[], Kernel32] = system_kernel
    name: str = "job_object"

    def probe(self) -> LayerReport:
        """Make a job, give it limits, read them back and close it. No process is put into it."""
        try:
            kernel = self.open_kernel()
            outer = kernel.in_job(None)
            job = kernel.create_job()
            try:
                _complete(kernel, job, JobLimits(1, None, None), UI_RESTRICTIONS)
            finally:
                kernel.close(job)
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        facts = (("outer_job", str(outer).lower()),)
        return LayerReport(self.name, LayerState.ACTIVE, "jobs can be made and keep their limits", facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Enter a job for `wanted`, or find that this process is in one at least as tight."""
        try:
            kernel = self.open_kernel()
            record = kernel.memory_information(memory_record(kernel.word))
            wish = wish_for(wanted, read_committed(record, kernel.word))
            return self._enter(kernel, wish)
        except (OSError, AttributeError) as error:
            return self._unavailable(error)

    def _enter(self, kernel: Kernel32, wish: Wish) -> LayerReport:
        outer = kernel.in_job(None)
        if outer and not _current(kernel).lacks(wish.limits):
            return self._active("in a job at least as tight already", kernel, wish)
        if not outer:
            try:
                _enter_own_job(kernel, wish.limits, UI_RESTRICTIONS)
            except Win32Error as error:
                # Between the question and the assignment another thread may have put this process into a job.
                if error.code != ACCESS_DENIED or not kernel.in_job(None):
                    raise
                if not _current(kernel).lacks(wish.limits):
                    return self._active("another thread entered a job at least as tight", kernel, wish)
            else:
                return self._active("alone in a kill-on-close job without breakaway", kernel, wish)
        _enter_own_job(kernel, wish.limits, 0)
        return self._active(f"in a nested kill-on-close job without breakaway; {NESTED}", kernel, wish)

    def _active(self, reason: str, kernel: Kernel32, wish: Wish) -> LayerReport:
        current = _current(kernel)
        if missing := current.lacks(wish.limits):
            raise JobMismatchError(f"the innermost job does not have: {', '.join(missing)}")
        facts = (
            ("limit_flags", f"{current.flags:#x}"),
            ("active_processes", str(current.active_processes)),
            ("process_memory", str(current.process_memory)),
            ("ui_restrictions", f"{_current_ui(kernel):#x}"),
        )
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts, limits=in_force(wish, current))

    def _unavailable(self, error: OSError | AttributeError) -> LayerReport:
        remedy = "Windows 8 or newer, and an outer job that admits a nested one"
        return LayerReport(self.name, LayerState.UNAVAILABLE, str(error), remedy)


def _enter_own_job(kernel: Kernel32, limits: JobLimits, ui: int) -> None:
    """Make a job, complete it, and put this process into it. Its handle stays open, for as long as the
    process lives.

    Raises `OSError`. Unless it says that the process was assigned, the process is in no job of this call, and
    nothing of that job is left open.
    """
    job = kernel.create_job()
    try:
        _complete(kernel, job, limits, ui)
        kernel.assign(job)
    except OSError as error:
        # Only a failed call leads here, never an interrupt after assigning: the job holds nobody.
        try:
            kernel.close(job)
        except Win32Error as left_open:
            raise OSError(f"{error}; and the empty job stays open: {left_open}") from error
        raise
    if not kernel.in_job(job):
        raise JobMismatchError("assigned to a job, but not in it")


def _complete(kernel: Kernel32, job: int, limits: JobLimits, ui: int) -> None:
    """Give `job` its limits and restrictions, and read them back: a job may be entered only when it is
    complete.
    """
    kernel.set_information(job, EXTENDED_LIMITS, limits_record(limits, kernel.word))
    found = read_limits(kernel.query_information(job, EXTENDED_LIMITS, limits_size(kernel.word)), kernel.word)
    if missing := found.lacks(limits):
        raise JobMismatchError(f"the system took the limits of the job and did not keep: {', '.join(missing)}")
    if not ui:
        return
    kernel.set_information(job, BASIC_UI_RESTRICTIONS, ui_record(ui))
    kept = read_ui(kernel.query_information(job, BASIC_UI_RESTRICTIONS, len(ui_record(ui))))
    if kept & ui != ui:
        raise JobMismatchError(f"the job keeps user interface restrictions {kept:#x}, asked for {ui:#x}")


def _current(kernel: Kernel32) -> JobLimits:
    """Limits of the innermost job of this process."""
    return read_limits(kernel.query_information(None, EXTENDED_LIMITS, limits_size(kernel.word)), kernel.word)


def _current_ui(kernel: Kernel32) -> int:
    return read_ui(kernel.query_information(None, BASIC_UI_RESTRICTIONS, len(ui_record(0))))
