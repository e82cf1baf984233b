"""Times loops alternately, round after round.

Everything that is compared is timed in the same rounds, one sample of each, in a different order each round. Other load
on the machine affects all of them equally, so the ratio within a round stays the same. pyperf times one function after
the other, each in its own processes, so on a busy machine its ratios drift with the load. The rounds are therefore made
here, and pyperf gets the values (`--pyperf FILE`).
"""

import asyncio
import gc
import time
import timeit
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Measure

Loop = Callable[[int], float]
"""Performs an operation n times and returns the seconds that took."""

EMPTY = "empty call"

cpu_time = time.process_time
"""The clock for pure computation, which excludes other processes. Reading it costs less than 1 µs, and a sample takes
milliseconds. Operations that wait for a disk or a socket are timed with `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The time that a benchmark may take.

    Attributes:
        quick: whether growth curves are shortened.
        rounds: samples of each loop.
        sample: minimum seconds of one sample.
        curve: samples of each point of a growth curve; fewer than `rounds`, because curves have many points.
    """

    quick: bool
    rounds: int
    sample: float
    curve: int = 9


QUICK = Budget(quick=True, rounds=21, sample=0.003)
FULL = Budget(quick=False, rounds=61, sample=0.02, curve=31)


def statement(code: str, setup: str = "pass", **names: Any) -> Loop:
    """Returns a loop over a statement. Each of `names` is a local variable in it, as in a user's function."""
    locals_of = "; ".join(f"{name} = _names[{name!r}]" for name in names)
    return timeit.Timer(code, f"{locals_of or 'pass'}\n{setup}", timer=cpu_time, globals={"_names": names}).timeit


def empty_call() -> Loop:
    """Returns a loop over a call of an empty Python function, whose time is N."""

    def empty() -> None:
        pass

    return statement("empty()", empty=empty)


def awaited(
    runner: asyncio.Runner, make: Callable[[], Awaitable[Any]], *, tasks: int = 1, clock: Callable[[], float] = cpu_time
) -> Loop:
    """Returns a loop that awaits the results of `make` on the runner's event loop, in `tasks` concurrent tasks."""

    async def some(count: int) -> None:
        for _ in range(count):
            await make()

    async def repeat(count: int) -> float:
        start = clock()
        if tasks == 1:
            await some(count)
        else:
            shares = [count // tasks + (number < count % tasks) for number in range(tasks)]
            await asyncio.gather(*(some(share) for share in shares))
        return clock() - start

    return lambda count: runner.run(repeat(count))


def calls(call: Callable[[], object]) -> Loop:
    """Returns a loop over calls of a function that works on files, timed by the CPU time in user and kernel mode."""

    def repeat(count: int) -> float:
        start = cpu_time()
        for _ in range(count):
            call()
        return cpu_time() - start

    return repeat


def interleave(budget: Budget, loops: Mapping[str, Loop], *, rounds: int | None = None) -> dict[str, Measure]:
    """Times the loops alternately. Returns the seconds of one operation, per loop and round."""
    names = list(loops)
    counts = {name: _calibrate(loop, budget.sample) for name, loop in loops.items()}
    values: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds or budget.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                values[name].append(loops[name](counts[name]) / counts[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Measure(name, tuple(times)) for name, times in values.items()}


def once_each(budget: Budget, loops: Mapping[str, Loop], *, rounds: int) -> dict[str, Measure]:
    """Like `interleave`, for slow operations: one operation per sample."""
    return interleave(Budget(budget.quick, rounds, 0.0), loops)


def _calibrate(loop: Loop, sample: float) -> int:
    """Returns how many operations fill a sample. Also warms up the loop."""
    count = 1
    while (taken := loop(count)) < sample:
        # Aim slightly past the sample, but in steps: the first operations are slower than the rest.
        count = max(count + 1, min(count * 10, int(count * 1.2 * sample / max(taken, 1e-9))))
    return count
