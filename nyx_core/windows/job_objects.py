"""Puts this process into its own Job Object: kill-on-close, one process, a memory limit, no user interface.

Theory of operation: closing the last handle of a kill-on-close job kills every process in it. So the job gets its
limits before the process is assigned to it, and assigning is the last step that may fail. A job that didn't get the
process is closed; the handle of a job that did get it is never closed, and lives as long as the process. If threads
race, each makes a job, and the losers close theirs, which are empty.

Source: learn.microsoft.com, "Job Objects" and "Nested Jobs".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport
from nyx_core.windows.job_records import (
    BASIC_UI_RESTRICTIONS,
    EXTENDED_LIMITS,
    PAGE,
    UI_RECORD,
    UI_RESTRICTIONS,
    JobLimits,
    limits_record,
    limits_size,
    memory_record,
    read_committed,
    read_limits,
)
from nyx_core.windows.kernel32 import ACCESS_DENIED, Kernel32, Win32Error, load_kernel32

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement, Limit

HEADROOM = 8 * 1024 * 1024
"""A process this close below its memory limit couldn't finish being confined, so it's treated as above the limit."""

ONE_VALUE = "a job has one value, which the process cannot raise: the hard limit"
NO_SUCH_LIMIT = "a Job Object has no such limit"
NESTED = "no user interface restrictions: the process is in an outer job, and a nested job may have none"


class JobMismatchError(OSError):
    """The system accepted the limits of a job and reports others."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The limits to give a job, and a report on each limit that was requested."""

    limits: JobLimits
    reports: tuple[LimitReport, ...]

    @classmethod
    def of(cls, wanted: Confinement, committed: int) -> JobRequest:
        """The job for `wanted`, of a process that has committed `committed` bytes.

        A process above its memory limit gets its use plus the limit, as on every platform, so that it survives.
        """
        asked = wanted.limits
        reports = []
        memory = seconds = None
        if asked.memory is not None:
            memory, note = _memory_limit(asked.memory, committed)
            reports.append(_limit_report("memory", "bytes", asked.memory, memory, note))
        active = None if asked.processes is None else asked.processes.hard
        note = ONE_VALUE
        if not wanted.subprocess:
            active, note = 1, "no subprocess: the process stays alone in its job"
        if asked.processes is not None and active is not None:
            reports.append(_limit_report("processes", "count", asked.processes, active, note))
        if asked.cpu_seconds is not None:
            seconds = asked.cpu_seconds.hard
            note = f"user mode only; {ONE_VALUE}"
            reports.append(_limit_report("cpu_seconds", "seconds", asked.cpu_seconds, seconds, note))
        for name, unit, limit in (
            ("open_files", "count", asked.open_files),
            ("file_size", "bytes", asked.file_size),
            ("core", "bytes", asked.core),
        ):
            if limit is not None:
                reports.append(_limit_report(name, unit, limit, -1, NO_SUCH_LIMIT))
        return cls(JobLimits(active, memory, seconds), tuple(reports))

    def reports_for(self, found: JobLimits) -> tuple[LimitReport, ...]:
        """The reports, with the values of `found`, the job that this process is in."""
        values = {
            "memory": found.process_memory,
            "processes": found.active_processes,
            "cpu_seconds": found.process_seconds,
        }
        return tuple(
            report if (value := values.get(report.name)) is None else report._replace(soft=value, hard=value)
            for report in self.reports
        )


def _memory_limit(asked: Limit, committed: int) -> tuple[int, str]:
    """Bytes in whole pages, and why. Beyond the limit, a job refuses to commit memory; it doesn't kill the process."""
    if committed + HEADROOM <= asked.hard:
        return asked.hard // PAGE * PAGE, f"literal: the process is below it; {ONE_VALUE}"
    note = f"{committed} bytes were committed already: use + limit; {ONE_VALUE}"
    return (committed + asked.hard) // PAGE * PAGE, note


def _limit_report(name: str, unit: str, asked: Limit, value: int, note: str) -> LimitReport:
    return LimitReport(name, unit, asked.soft, asked.hard, value, value, note)


@dataclass(frozen=True, slots=True)
class JobObject:
    """The layer. `open_kernel` opens the library to call."""

    open_kernel: Callable[[], Kernel32] = load_kernel32
    name: str = "job_object"

    def probe(self) -> LayerReport:
        """Make a job, give it limits, read them back and close it. No process is put into it."""
        try:
            kernel = self.open_kernel()
            outer = kernel.in_job(None)
            job = kernel.create_job()
            try:
                _set_limits(kernel, job, JobLimits(1, None, None), UI_RESTRICTIONS)
            finally:
                kernel.close(job)
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        facts = (("outer_job", str(outer).lower()),)
        return LayerReport(self.name, LayerState.ACTIVE, "jobs can be made and keep their limits", facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Enter a job for `wanted`, unless this process is already in one at least as tight."""
        try:
            kernel = self.open_kernel()
            record = kernel.memory_information(memory_record(kernel.word))
            return self._enter(kernel, JobRequest.of(wanted, read_committed(record, kernel.word)))
        except (OSError, AttributeError) as error:
            return self._unavailable(error)

    def _enter(self, kernel: Kernel32, request: JobRequest) -> LayerReport:
        outer = kernel.in_job(None)
        if outer and not _current(kernel).lacks(request.limits):
            return self._active("in a job at least as tight already", kernel, request)
        if not outer:
            try:
                _enter_own_job(kernel, request.limits, UI_RESTRICTIONS)
            except Win32Error as error:
                # Another thread may have put this process into a job since `in_job` was called.
                if error.code != ACCESS_DENIED or not kernel.in_job(None):
                    raise
                if not _current(kernel).lacks(request.limits):
                    return self._active("another thread entered a job at least as tight", kernel, request)
            else:
                return self._active("alone in a kill-on-close job without breakaway", kernel, request)
        _enter_own_job(kernel, request.limits, 0)
        return self._active(f"in a nested kill-on-close job without breakaway; {NESTED}", kernel, request)

    def _active(self, reason: str, kernel: Kernel32, request: JobRequest) -> LayerReport:
        current = _current(kernel)
        if missing := current.lacks(request.limits):
            raise JobMismatchError(f"the innermost job does not have: {', '.join(missing)}")
        (ui,) = UI_RECORD.unpack(kernel.query_information(None, BASIC_UI_RESTRICTIONS, UI_RECORD.size))
        facts = (
            ("limit_flags", f"{current.flags:#x}"),
            ("active_processes", str(current.active_processes)),
            ("process_memory", str(current.process_memory)),
            ("ui_restrictions", f"{ui:#x}"),
        )
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts, limits=request.reports_for(current))

    def _unavailable(self, error: OSError | AttributeError) -> LayerReport:
        remedy = "Windows 8 or newer, and an outer job that admits a nested one"
        return LayerReport(self.name, LayerState.UNAVAILABLE, str(error), remedy)


def _enter_own_job(kernel: Kernel32, limits: JobLimits, ui: int) -> None:
    """Make a job, set its limits, and put this process into it. The handle stays open as long as the process lives.

    Raises `OSError`. Unless it says that the process was assigned, the process is in no job of this call, and the job
    was closed.
    """
    job = kernel.create_job()
    try:
        _set_limits(kernel, job, limits, ui)
        kernel.assign(job)
    except OSError as error:
        # Only a failed call gets here, never an interrupt after assigning, so the job is empty.
        try:
            kernel.close(job)
        except Win32Error as left_open:
            raise OSError(f"{error}; and the empty job stays open: {left_open}") from error
        raise
    if not kernel.in_job(job):
        raise JobMismatchError("assigned to a job, but not in it")


def _set_limits(kernel: Kernel32, job: int, limits: JobLimits, ui: int) -> None:
    """Give `job` its limits and user interface restrictions, and read them back."""
    kernel.set_information(job, EXTENDED_LIMITS, limits_record(limits, kernel.word))
    found = read_limits(kernel.query_information(job, EXTENDED_LIMITS, limits_size(kernel.word)), kernel.word)
    if missing := found.lacks(limits):
        raise JobMismatchError(f"the system took the limits of the job and did not keep: {', '.join(missing)}")
    if not ui:
        return
    kernel.set_information(job, BASIC_UI_RESTRICTIONS, UI_RECORD.pack(ui))
    (kept,) = UI_RECORD.unpack(kernel.query_information(job, BASIC_UI_RESTRICTIONS, UI_RECORD.size))
    if kept & ui != ui:
        raise JobMismatchError(f"the job keeps user interface restrictions {kept:#x}, requested {ui:#x}")


def _current(kernel: Kernel32) -> JobLimits:
    """Limits of the innermost job of this process."""
    return read_limits(kernel.query_information(None, EXTENDED_LIMITS, limits_size(kernel.word)), kernel.word)
