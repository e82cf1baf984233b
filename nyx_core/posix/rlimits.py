"""Resource limits of one process: decided by pure functions, set with setrlimit(2). Knows no one OS.

What a process uses already, and whether it is exempt, each platform tells through `Usage`.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.confinement import MIB, Limit
from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement, ResourceLimits

UNLIMITED = resource.RLIM_INFINITY
# OpenBSD has no RLIMIT_AS: its RLIMIT_DATA counts what is mapped without a file (getrlimit(2)).
MEMORY: int = getattr(resource, "RLIMIT_AS", resource.RLIMIT_DATA)
HEADROOM = 8 * MIB
"""A process this close below its memory limit could not finish being confined: it counts as above it."""


class Usage(NamedTuple):
    """What the process uses before it is limited; `None` where the OS does not tell.

    Attributes:
        address_space: bytes mapped.
        own_tasks, user_tasks: processes and threads that are this process, and that belong to its user.
        processes_exempt: why the limit on processes does not bind this user; empty if it does.
    """

    address_space: int | None
    own_tasks: int | None
    user_tasks: int | None
    processes_exempt: str = ""


class Wish(NamedTuple):
    """One limit to set: its resource number, what was asked, what to ask the kernel for, and why they differ."""

    name: str
    unit: str
    number: int
    asked: Limit
    goal: Limit
    note: str


def wishes(limits: ResourceLimits, usage: Usage) -> tuple[Wish, ...]:
    """What to set, before clamping. Raises `LookupError` for a limit that cannot be placed without `usage`."""
    found = []
    if limits.memory is not None:
        goal, note = memory_goal(limits.memory, usage)
        found.append(Wish("memory", "bytes", MEMORY, limits.memory, goal, note))
    if limits.processes is not None:
        goal, note = processes_goal(limits.processes, usage)
        found.append(Wish("processes", "count", resource.RLIMIT_NPROC, limits.processes, goal, note))
    for name, unit, number, asked in (
        ("open_files", "count", resource.RLIMIT_NOFILE, limits.open_files),
        ("cpu_seconds", "seconds", resource.RLIMIT_CPU, limits.cpu_seconds),
        ("file_size", "bytes", resource.RLIMIT_FSIZE, limits.file_size),
        ("core", "bytes", resource.RLIMIT_CORE, limits.core),
    ):
        if asked is not None:
            found.append(Wish(name, unit, number, asked, asked, ""))
    return tuple(found)


def memory_goal(asked: Limit, usage: Usage) -> tuple[Limit, str]:
    """Literal for a process below the limit, use + limit for one above it, so that applying never kills."""
    if usage.address_space is None:
        raise LookupError("memory in use cannot be read")
    if usage.address_space + HEADROOM <= asked.soft:
        return asked, "literal: the process is below it"
    used = usage.address_space
    return Limit(used + asked.soft, used + asked.hard), f"{used} bytes were mapped already: use + limit"


def processes_goal(asked: Limit, usage: Usage) -> tuple[Limit, str]:
    """Literal where the count is this process's own, otherwise count + limit: the kernel counts the whole user."""
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
    """`goal` within the limits in force, given as getrlimit(2) gives them: no limit is ever raised."""
    most = goal.hard if hard == UNLIMITED else min(goal.hard, hard)
    least = goal.soft if soft == UNLIMITED else min(goal.soft, soft)
    return Limit(min(least, most), most)


class Limits(NamedTuple):
    """The layer. `usage` measures this process."""

    usage: Callable[[], Usage]
    name: str = "limits"

    def probe(self) -> LayerReport:
        """Read the limits that are in force."""
        facts = tuple((name, _shown(number)) for name, number in _NUMBERS)
        return LayerReport(self.name, LayerState.ACTIVE, "can be lowered", facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set every limit asked for; one that cannot be set does not keep the others from being set."""
        try:
            asked = wishes(wanted.limits, self.usage())
        except LookupError as error:
            return LayerReport(
                self.name, LayerState.UNAVAILABLE, f"no limit was set: {error.args[0]}", "a readable /proc"
            )
        reports, failures = [], []
        for wish in asked:
            try:
                reports.append(_set(wish))
            except (OSError, ValueError) as error:
                failures.append(f"{wish.name}: {error}")
                reports.append(_reported(wish, f"could not be set: {error}"))
        if failures:
            return LayerReport(self.name, LayerState.UNAVAILABLE, "; ".join(failures), limits=tuple(reports))
        if not reports:
            return LayerReport(self.name, LayerState.DISABLED, "no limit was asked for")
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(reports)} set and read back", limits=tuple(reports))


_NUMBERS = (
    ("memory", MEMORY),
    ("open_files", resource.RLIMIT_NOFILE),
    ("processes", resource.RLIMIT_NPROC),
    ("cpu_seconds", resource.RLIMIT_CPU),
    ("file_size", resource.RLIMIT_FSIZE),
    ("core", resource.RLIMIT_CORE),
)


def _shown(number: int) -> str:
    return "/".join("none" if value == UNLIMITED else str(value) for value in resource.getrlimit(number))


def _set(wish: Wish) -> LimitReport:
    soft, hard = resource.getrlimit(wish.number)
    goal = clamp(wish.goal, soft, hard)
    note = wish.note
    if goal != wish.goal:
        note = f"{note}; " * bool(note) + f"clamped to the limits in force, {_shown(wish.number)}"
    resource.setrlimit(wish.number, (goal.soft, goal.hard))
    report = _reported(wish, note)
    if (report.soft, report.hard) != (goal.soft, goal.hard):
        raise OSError(f"asked for {goal.soft}/{goal.hard}, in force {report.soft}/{report.hard}")
    return report


def _reported(wish: Wish, note: str) -> LimitReport:
    soft, hard = (-1 if value == UNLIMITED else value for value in resource.getrlimit(wish.number))
    return LimitReport(wish.name, wish.unit, wish.asked.soft, wish.asked.hard, soft, hard, note)
