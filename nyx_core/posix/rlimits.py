"""Resource limits of a process: pure functions choose the values, setrlimit(2) sets them.

Each platform measures through `RlimitUsage` what the process uses already, and whether its user is exempt.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.confinement import MIB, Limit
from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement, ResourceLimits

UNLIMITED = resource.RLIM_INFINITY
HEADROOM = 8 * MIB
"""A process this close below its memory limit couldn't finish being confined, so it's treated as above the limit."""

# OpenBSD has no RLIMIT_AS; its RLIMIT_DATA counts memory that is mapped without a file (getrlimit(2)).
MEMORY: int = getattr(resource, "RLIMIT_AS", resource.RLIMIT_DATA)
RESOURCES = {
    "memory": (MEMORY, "bytes"),
    "processes": (resource.RLIMIT_NPROC, "count"),
    "open_files": (resource.RLIMIT_NOFILE, "count"),
    "cpu_seconds": (resource.RLIMIT_CPU, "seconds"),
    "file_size": (resource.RLIMIT_FSIZE, "bytes"),
    "core": (resource.RLIMIT_CORE, "bytes"),
}
"""Resource number and unit of each field of `ResourceLimits`."""


class RlimitUsage(NamedTuple):
    """What the process uses before it's limited; `None` if the OS doesn't tell.

    Attributes:
        address_space: bytes mapped.
        own_tasks: processes and threads of this process.
        user_tasks: processes and threads of its user.
        processes_exempt: why the limit on processes doesn't apply to this user; empty if it does.
    """

    address_space: int | None
    own_tasks: int | None
    user_tasks: int | None
    processes_exempt: str = ""


class RlimitRequest(NamedTuple):
    """A limit to set: its resource number, what was requested, what to ask the kernel for, and why they differ."""

    name: str
    unit: str
    number: int
    asked: Limit
    goal: Limit
    note: str


def rlimit_requests(limits: ResourceLimits, usage: RlimitUsage) -> tuple[RlimitRequest, ...]:
    """The limits to set, before clamping. Raises `LookupError` if one needs a part of `usage` that is unknown."""
    found = []
    for name, (number, unit) in RESOURCES.items():
        asked: Limit | None = getattr(limits, name)
        if asked is None:
            continue
        goal, note = asked, ""
        if name == "memory":
            goal, note = memory_goal(asked, usage)
        elif name == "processes":
            goal, note = processes_goal(asked, usage)
        found.append(RlimitRequest(name, unit, number, asked, goal, note))
    return tuple(found)


def memory_goal(asked: Limit, usage: RlimitUsage) -> tuple[Limit, str]:
    """Literal for a process below the limit, use + limit for one above it, so that applying doesn't kill it."""
    if usage.address_space is None:
        raise LookupError("memory in use cannot be read")
    if usage.address_space + HEADROOM <= asked.soft:
        return asked, "literal: the process is below it"
    used = usage.address_space
    return Limit(used + asked.soft, used + asked.hard), f"{used} bytes were mapped already: use + limit"


def processes_goal(asked: Limit, usage: RlimitUsage) -> tuple[Limit, str]:
    """Literal if the user has only this process, otherwise count + limit: the kernel counts per user."""
    if usage.processes_exempt:
        return asked, f"literal, but not enforced: {usage.processes_exempt}"
    if usage.user_tasks is None or usage.own_tasks is None:
        raise LookupError("processes of the user cannot be counted")
    others = usage.user_tasks - usage.own_tasks
    if others <= 0 and usage.own_tasks <= asked.soft:
        return asked, "literal: the user runs nothing else"
    count = usage.user_tasks
    return Limit(count + asked.soft, count + asked.hard), f"the user has {count} tasks already: count + limit"


def clamp(goal: Limit, soft: int, hard: int) -> Limit:
    """`goal` within the limits in force, given as getrlimit(2) gives them. No limit is ever raised."""
    max_hard = goal.hard if hard == UNLIMITED else min(goal.hard, hard)
    max_soft = goal.soft if soft == UNLIMITED else min(goal.soft, soft)
    return Limit(min(max_soft, max_hard), max_hard)


class Rlimits(NamedTuple):
    """The layer. `usage` measures this process."""

    usage: Callable[[], RlimitUsage]
    name: str = "limits"

    def probe(self) -> LayerReport:
        """Read the limits that are in force."""
        facts = tuple((name, _limits_as_text(number)) for name, (number, _) in RESOURCES.items())
        return LayerReport(self.name, LayerState.ACTIVE, "can be lowered", facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set every requested limit. If one can't be set, the others still are."""
        try:
            requests = rlimit_requests(wanted.limits, self.usage())
        except LookupError as error:
            reason = f"no limit was set: {error.args[0]}"
            return LayerReport(self.name, LayerState.UNAVAILABLE, reason, "a readable /proc")
        reports, failures = [], []
        for request in requests:
            try:
                reports.append(_set(request))
            except (OSError, ValueError) as error:
                failures.append(f"{request.name}: {error}")
                reports.append(_limit_report(request, f"could not be set: {error}"))
        if failures:
            return LayerReport(self.name, LayerState.UNAVAILABLE, "; ".join(failures), limits=tuple(reports))
        if not reports:
            return LayerReport(self.name, LayerState.DISABLED, "no limit was requested")
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(reports)} set and read back", limits=tuple(reports))


def _limits_as_text(number: int) -> str:
    return "/".join("none" if value == UNLIMITED else str(value) for value in resource.getrlimit(number))


def _set(request: RlimitRequest) -> LimitReport:
    goal = clamp(request.goal, *resource.getrlimit(request.number))
    note = request.note
    if goal != request.goal:
        note = f"{note}; " * bool(note) + f"clamped to the limits in force, {_limits_as_text(request.number)}"
    resource.setrlimit(request.number, (goal.soft, goal.hard))
    report = _limit_report(request, note)
    if (report.soft, report.hard) != (goal.soft, goal.hard):
        raise OSError(f"requested {goal.soft}/{goal.hard}, in force {report.soft}/{report.hard}")
    return report


def _limit_report(request: RlimitRequest, note: str) -> LimitReport:
    soft, hard = (-1 if value == UNLIMITED else value for value in resource.getrlimit(request.number))
    return LimitReport(request.name, request.unit, request.asked.soft, request.asked.hard, soft, hard, note)


def psutil_usage() -> RlimitUsage:
    """Measures this process on macOS and the BSDs; `None` for what psutil may not read."""
    import psutil  # only these systems measure with it

    try:
        mapped: int | None = psutil.Process().memory_info().vms
    except psutil.Error:
        mapped = None
    # RLIMIT_NPROC counts processes, not threads, and doesn't limit root (getrlimit(2) of both).
    uid, count = os.getuid(), 0
    if uid == 0:
        return RlimitUsage(mapped, None, None, "the kernel exempts root")
    for process in psutil.process_iter():
        try:
            count += process.uids().real == uid
        except psutil.Error:
            continue  # it has ended, or belongs to another user
    return RlimitUsage(mapped, 1, count)
