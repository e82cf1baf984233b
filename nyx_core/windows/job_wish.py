"""What a confinement asks of a Job Object. A pure decision: knows no call and no layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LimitReport
from nyx_core.windows.job_records import PAGE, JobLimits

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement, Limit, ResourceLimits

HEADROOM = 8 * 1024 * 1024
"""A process this close below its memory limit could not finish being confined: it counts as above it."""

ONE_VALUE = "a job has one value, which the process cannot raise: the hard limit"
NO_SUCH_LIMIT = "a Job Object has no such limit"


@dataclass(frozen=True, slots=True)
class Wish:
    """The limits to give a job, and how each limit that was asked for is met."""

    limits: JobLimits
    reports: tuple[LimitReport, ...]


def wish_for(wanted: Confinement, committed: int) -> Wish:
    """The job for `wanted`, of a process that has `committed` bytes already.

    A process above its memory limit gets what it has and the limit on top, as on every platform, so that it
    lives on.
    """
    asked = wanted.limits
    reports = []
    memory = seconds = None
    if asked.memory is not None:
        memory, note = _memory(asked.memory, committed)
        reports.append(_report("memory", "bytes", asked.memory, memory, note))
    active = None if asked.processes is None else asked.processes.hard
    note = ONE_VALUE
    if not wanted.subprocess:
        active, note = 1, "no subprocess: the process stays alone in its job"
    if asked.processes is not None and active is not None:
        reports.append(_report("processes", "count", asked.processes, active, note))
    if asked.cpu_seconds is not None:
        seconds = asked.cpu_seconds.hard
        reports.append(_report("cpu_seconds", "seconds", asked.cpu_seconds, seconds, f"user mode only; {ONE_VALUE}"))
    limits = JobLimits(active, memory, seconds)
    return Wish(limits, (*reports, *_without_counterpart(asked)))


def in_force(wish: Wish, found: JobLimits) -> tuple[LimitReport, ...]:
    """The reports of `wish` with the values of `found`, the job that this process is really in."""
    values = {
        "memory": found.process_memory,
        "processes": found.active_processes,
        "cpu_seconds": found.process_seconds,
    }
    return tuple(
        report if (value := values.get(report.name)) is None else report._replace(soft=value, hard=value)
        for report in wish.reports
    )


def _memory(asked: Limit, committed: int) -> tuple[int, str]:
    """Bytes in whole pages, and why. A job refuses a commit that passes the limit; it ends nobody for it."""
    if committed + HEADROOM <= asked.hard:
        return asked.hard // PAGE * PAGE, f"literal: the process is below it; {ONE_VALUE}"
    note = f"{committed} bytes were committed already: use + limit; {ONE_VALUE}"
    return (committed + asked.hard) // PAGE * PAGE, note


def _report(name: str, unit: str, asked: Limit, value: int, note: str) -> LimitReport:
    return LimitReport(name, unit, asked.soft, asked.hard, value, value, note)


def _without_counterpart(asked: ResourceLimits) -> tuple[LimitReport, ...]:
    rows = (
        ("open_files", "count", asked.open_files),
        ("file_size", "bytes", asked.file_size),
        ("core", "bytes", asked.core),
    )
    return tuple(_report(name, unit, limit, -1, NO_SUCH_LIMIT) for name, unit, limit in rows if limit is not None)
