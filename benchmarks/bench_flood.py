"""A plugin that floods: 1,000,000 denied checks, each of another host, beside 10,000 checks that another plugin makes.

Before each check of the quiet plugin the other one makes a hundred that are denied. In every second batch it makes
allowed ones instead, for as long: the baseline is a neighbour that is as busy, and may. What is asked: does the flood
push anything out of the quiet plugin's memory, does it grow the process, does it slow the slowest check in a hundred.
"""

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.timing import Budget
from nyx_stream.plugin_sandbox import NetworkDenied, SandboxGuard, SandboxPolicy

_CHECKS = 10_000
_BATCHES = 20
_BESIDE = 100
"""Checks of the neighbour before each check of the quiet plugin: 10,000 times 100 is a million."""


_AS_LONG = 10
"""Allowed checks, of new hosts, that take as long as a denied one with its exception."""

_FEWER = 10
"""One in so many checks is made beside the busy neighbour: enough for a baseline."""


def run(budget: Budget) -> Iterator[Result]:
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com", "*.example.org")
    quiet, loud = SandboxGuard(policy, plugin="quiet"), SandboxGuard(policy, plugin="loud")
    numbers = itertools.count()

    def flood() -> None:
        for _ in range(_BESIDE):
            with suppress(NetworkDenied):
                loud.check_connect(f"host{next(numbers)}.example.net", 443)

    def work() -> None:
        for _ in range(_BESIDE * _AS_LONG):
            loud.check_connect(f"host{next(numbers)}.example.org", 443)

    beside: dict[str, list[float]] = {"flood": [], "work": []}
    for neighbour in (work, flood):
        _slowest(quiet, neighbour, budget.rounds)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(_BATCHES):
        beside["flood"].append(_slowest(quiet, flood, _CHECKS // _BATCHES))
        beside["work"].append(_slowest(quiet, work, _CHECKS // _BATCHES // _FEWER))
    gc.collect()
    grown = max(psutil.Process().memory_info().rss - before, 0)
    yield Row(
        "p99 of a check while another plugin tries 1,000,000 denied ones",
        Measure("beside a flood of denied checks", tuple(beside["flood"])),
        Measure("beside allowed ones, for as long", tuple(beside["work"])),
        Target("ratio", 2),
    )
    yield Row(
        "memory that 1,000,000 denied checks leave behind", Measure("RSS", (grown,), "B"), None, Target("B", 1 << 20)
    )


def _slowest(guard: SandboxGuard, meanwhile: Callable[[], None], checks: int) -> float:
    """Returns the 99th percentile of the seconds that a check takes."""
    times: list[int] = []
    for _ in range(checks):
        meanwhile()
        start = time.perf_counter_ns()
        guard.check_connect("api.example.com", 443)
        times.append(time.perf_counter_ns() - start)
    return statistics.quantiles(times, n=100)[98] * 1e-9
