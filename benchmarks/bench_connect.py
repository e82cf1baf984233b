"""`check_connect`: may this plugin connect to that host? A look-up, independent of the number of rules.

The baseline is N, the time of an empty Python function call. The growth curves have a second baseline: comparing the
rules one by one, as simple allow-lists do.
"""

import gc
import itertools
from collections.abc import Iterator
from fnmatch import fnmatchcase

from benchmarks.measure import Growth, Result, Row, Series, Target
from benchmarks.timing import EMPTY, Budget, Loop, cpu_time, empty_call, interleave, statement
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from nyx_stream.policy import ConnectRule

MILLION = 1_000_000
_NEW = "5 N for the call and the failed look-up, 6 N to split the host and look up its zone"
_PLAIN = f"{_NEW}, 5 N for the pattern of its label, 3 N to check its length and the size of the cache"
_HYPHEN = f"{_NEW}, 8 N for the pattern that accepts a hyphen only inside a label"
_MAX_NAIVE_RULES = 10_000
"""Maximum rules of the naive baseline, which compiles their patterns first. A quick run uses a tenth."""


def run(budget: Budget) -> Iterator[Result]:
    yield from _exact(budget)
    yield from _wildcard(budget)
    yield _by_rules(budget)
    yield _by_plugins(budget)


def guard_of(rules: int) -> SandboxGuard:
    """Returns a guard with that many rules; the last two are `api.example.com` and `*.example.org`."""
    # Rules as values: parsing a million texts would take most of a quick run.
    # And without the garbage collector, which would traverse all of them repeatedly.
    gc.disable()
    try:
        others = tuple(ConnectRule(f"host{number}.example.net") for number in range(rules - 2))
        return SandboxGuard(SandboxPolicy(others).allow_connect_host("api.example.com", "*.example.org"))
    finally:
        gc.enable()


def seen(guard: SandboxGuard, host: str = "api.example.com") -> Loop:
    """Returns a loop over a check of one host."""
    return statement("guard.check_connect(host, 443)", guard=guard, host=host)


def unseen(guard: SandboxGuard, pattern: str = "cdn{}.example.org") -> Loop:
    """Returns a loop over checks, each with a new host."""
    numbers = itertools.count()

    def loop(count: int) -> float:
        hosts = [pattern.format(next(numbers)) for _ in range(count)]
        start = cpu_time()
        for host in hosts:
            guard.check_connect(host, 443)
        return cpu_time() - start

    return loop


def _exact(budget: Budget) -> Iterator[Row]:
    times = interleave(
        budget, {"10 rules": seen(guard_of(10)), "1,000,000 rules": seen(guard_of(MILLION)), EMPTY: empty_call()}
    )
    yield Row("check_connect, allowed exact host, 10 rules", times["10 rules"], times[EMPTY], Target("N", 4))
    yield Row(
        "check_connect, 1,000,000 rules against 10", times["1,000,000 rules"], times["10 rules"], Target("ratio", 1.2)
    )


def _wildcard(budget: Budget) -> Iterator[Row]:
    known = guard_of(10)
    times = interleave(
        budget,
        {
            "new": unseen(guard_of(10)),
            "new, hyphen": unseen(guard_of(10), "cdn-{}.example.org"),
            "seen": seen(known, "cdn7.example.org"),
            EMPTY: empty_call(),
        },
    )
    yield Row("check_connect, wildcard host not seen before", times["new"], times[EMPTY], Target("N", 20), _PLAIN)
    yield Row("the same, with a hyphen in its label", times["new, hyphen"], times[EMPTY], Target("N", 20), _HYPHEN)
    yield Row("check_connect, wildcard host seen before", times["seen"], times[EMPTY], Target("N", 5))


def _by_rules(budget: Budget) -> Growth:
    sizes = [10, 100, 1_000, 10_000, *([] if budget.quick else [100_000, MILLION])]
    loops: dict[str, Loop] = {EMPTY: empty_call()}
    for size in sizes:
        guard = guard_of(size)
        loops |= {f"seen {size}": seen(guard), f"new {size}": unseen(guard)}
        if size <= (_MAX_NAIVE_RULES // 10 if budget.quick else _MAX_NAIVE_RULES):
            rules = [rule.text for rule in guard.policy.connect]
            loops[f"naive {size}"] = statement(
                "any(match(host, rule) for rule in rules)", match=fnmatchcase, host="api.example.com", rules=rules
            )
    times = interleave(budget, loops, rounds=budget.curve)

    def curve(name: str, key: str) -> Series:
        points = ((size, times.get(f"{key} {size}", times[EMPTY] if key == "empty" else None)) for size in sizes)
        return Series(name, tuple((size, measure) for size, measure in points if measure is not None))

    return Growth(
        "check_connect by number of rules",
        "rules",
        (
            curve("host seen before", "seen"),
            curve("host not seen before", "new"),
            curve("reading the rules one by one (fnmatch)", "naive"),
            curve("an empty call (N)", "empty"),
        ),
    )


def _by_plugins(budget: Budget) -> Growth:
    sizes = [1, 10, 100, 1_000, *([] if budget.quick else [10_000])]
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com", "*.example.org")
    guards = [SandboxGuard(policy, plugin=f"plugin-{number}") for number in range(sizes[-1])]
    loops = {str(size): _round_robin(guards[:size]) for size in sizes} | {EMPTY: empty_call()}
    times = interleave(budget, loops, rounds=budget.curve)
    return Growth(
        "check_connect by number of plugins, each with its guard, in turn",
        "plugins",
        (
            Series("check_connect", tuple((size, times[str(size)]) for size in sizes)),
            Series("an empty call (N)", tuple((size, times[EMPTY]) for size in sizes)),
        ),
    )


def _round_robin(guards: list[SandboxGuard]) -> Loop:
    order = itertools.cycle(guards)

    def loop(count: int) -> float:
        chosen = list(itertools.islice(order, count))
        start = cpu_time()
        for guard in chosen:
            guard.check_connect("api.example.com", 443)
        return cpu_time() - start

    return loop
