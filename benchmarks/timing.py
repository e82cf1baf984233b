"""The clock: loops that are timed in turn, round after round. Knows no claim.

Everything that is compared is timed in the same rounds, one sample of each after the other, in another order each
round: what the machine does meanwhile hits all of them alike, and the ratio within a round stays. pyperf times one
function after the other, each in processes of its own; on a machine that is not quiet its ratios drift with the load.
So the rounds are made here, and pyperf gets the values (`--pyperf FILE`).
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
"""Does one thing n times and returns the seconds that it took."""

EMPTY = "empty call"

cpu_time = time.process_time
"""The clock for what only computes: what other processes take of the machine is not counted. Its reading costs less
than 1 µs, a sample takes milliseconds. What waits, for a disk or a socket, is timed by `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much time a benchmark may take.

    Attributes:
        quick: whether the ends of growth curves are cut.
        rounds: samples of each loop.
        sample: seconds that one sample takes at least.
        curve: samples of each point of a growth curve, of which there are many and none is a headline.
    """

    quick: bool
    rounds: int
    sample: float
    curve: int = 9


QUICK = Budget(quick=True, rounds=21, sample=0.003)
FULL = Budget(quick=False, rounds=61, sample=0.02, curve=31)


def statement(code: str, setup: str = "pass", **names: Any) -> Loop:
    """Returns a loop over a statement, in which every one of `names` is a local variable, as in a user's function."""
    locals_of = "; ".join(f"{name} = _names[{name!r}]" for name in names)
    return timeit.Timer(code, f"{locals_of or 'pass'}\n{setup}", timer=cpu_time, globals={"_names": names}).timeit


def empty_call() -> Loop:
    """Returns a loop over a call of an empty Python function: its time is N."""

    def empty() -> None:
        pass

    return statement("empty()", empty=empty)


def awaited(
    runner: asyncio.Runner, make: Callable[[], Awaitable[Any]], *, tasks: int = 1, clock: Callable[[], float] = cpu_time
) -> Loop:
    """Returns a loop that awaits what `make` gives, on the runner's event loop, in that many tasks at a time."""

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
    """Returns a loop over calls of a function that works on files: its own time and the kernel's, not the waiting."""

    def repeat(count: int) -> float:
        start = cpu_time()
        for _ in range(count):
            call()
        return cpu_time() - start

    return repeat


def interleave(budget: Budget, loops: Mapping[str, Loop], *, rounds: int | None = None) -> dict[str, Measure]:
    """Times the loops in turn; returns the seconds of one operation, per loop and round."""
    names = list(loops)
    counts = {name: _calibrate(loop, budget.sample) for name, loop in loops.items()}
    values: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds or budget.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                values[name].append(loops[name](counts[name]) / counts[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Measure(name, tuple(times)) for name, times in values.items()}


def once_each(budget: Budget, loops: Mapping[str, Loop], *, rounds: int) -> dict[str, Measure]:
    """As `interleave`, for what is too slow to repeat within a sample: one operation per sample."""
    return interleave(Budget(budget.quick, rounds, 0.0), loops)


def _calibrate(loop: Loop, sample: float) -> int:
    """Returns how many operations fill a sample; warms the loop up meanwhile."""
    count = 1
    while (taken := loop(count)) < sample:
        # Aim a little past the sample, but never jump: the first operations are slower than the rest.
        count = max(count + 1, min(count * 10, int(count * 1.2 * sample / max(taken, 1e-9))))
    return count
