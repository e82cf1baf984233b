"""A plugin that floods the guard: 1,000,000 denied checks, each of a new host, during 10,000 checks of another plugin.

Before each check of the quiet plugin, the other one makes a hundred denied checks. In every second batch it makes
allowed checks for the same time: the baseline is an equally busy neighbour. The questions: Does the flood evict
anything from the quiet plugin's cache? Does the process grow? Does the slowest check in a hundred get slower?
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
_DENIED_PER_CHECK = 100
"""Checks of the neighbour before each check of the quiet plugin; 10,000 times 100 is a million."""


_ALLOWED_PER_DENIED = 10
"""Allowed checks of new hosts that take as long as one denied check with its exception."""

_BASELINE_SHARE = 10
"""Every tenth check runs next to the busy neighbour, which is enough for a baseline."""


def run(budget: Budget) -> Iterator[Result]:
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com", "*.example.org")
    quiet, loud = SandboxGuard(policy, plugin="quiet"), SandboxGuard(policy, plugin="loud")
    numbers = itertools.count()

    def flood() -> None:
        for _ in range(_DENIED_PER_CHECK):
            with suppress(NetworkDenied):
                loud.check_connect(f"host{next(numbers)}.example.net", 443)

    def work() -> None:
        for _ in range(_DENIED_PER_CHECK * _ALLOWED_PER_DENIED):
            loud.check_connect(f"host{next(numbers)}.example.org", 443)

    beside: dict[str, list[float]] = {"flood": [], "work": []}
    for neighbour in (work, flood):
        _p99(quiet, neighbour, budget.rounds)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(_BATCHES):
        beside["flood"].append(_p99(quiet, flood, _CHECKS // _BATCHES))
        beside["work"].append(_p99(quiet, work, _CHECKS // _BATCHES // _BASELINE_SHARE))
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


def _p99(guard: SandboxGuard, meanwhile: Callable[[], None], checks: int) -> float:
    """Returns the 99th percentile of a check's seconds."""
    times: list[int] = []
    for _ in range(checks):
        meanwhile()
        start = time.perf_counter_ns()
        guard.check_connect("api.example.com", 443)
        times.append(time.perf_counter_ns() - start)
    return statistics.quantiles(times, n=100)[98] * 1e-9
