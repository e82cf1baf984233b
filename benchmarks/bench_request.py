"""`check_request`: may this plugin send that request? Decided on the canonical parts of the URL.

A denied request is timed from the call until the caller has the exception: a plugin that keeps trying must not cost
more than one that is allowed.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx

from benchmarks.measure import Growth, Result, Row, Series, Target
from benchmarks.peers import peer, version
from benchmarks.timing import EMPTY, Budget, Loop, cpu_time, empty_call, interleave, statement
from nyx_stream.plugin_sandbox import NetworkDenied, SandboxGuard, SandboxPolicy

_URL = "https://api.met.no/v1/forecast?lat=59.9"


def run(budget: Budget) -> Iterator[Result]:
    guard = _guard(10)
    times = interleave(
        budget,
        {
            "seen": statement("guard.check_request('GET', url)", guard=guard, url=httpx.URL(_URL)),
            "seen text": statement("guard.check_request('GET', url)", guard=guard, url=_URL),
            "new": _fresh(guard, httpx.URL, "https://api.met.no/v1/place{}"),
            "new text": _fresh(guard, str, "https://api.met.no/v1/place{}"),
            "denied": _denied(guard, httpx.URL),
            "denied text": _denied(guard, str),
            "parse": _parse(),
            EMPTY: empty_call(),
        },
    )
    yield Row('check_request("GET", httpx.URL), seen, path rule', times["seen"], times[EMPTY], Target("N", 20))
    yield Row('check_request("GET", str), seen, path rule', times["seen text"], times[EMPTY], Target("N", 20))
    yield Row("denied check_request(httpx.URL), to the exception", times["denied"], None, Target("s", 40e-6))
    yield Row("denied check_request(str), to the exception", times["denied text"], None, Target("s", 40e-6))
    yield Row("check_request(httpx.URL) not seen, against httpx.URL(text)", times["new"], times["parse"])
    yield Row("check_request(str) not seen, against httpx.URL(text)", times["new text"], times["parse"])
    yield _ssrfguard(budget)
    yield _by_rules(budget)


def _guard(rules: int) -> SandboxGuard:
    others = [f"GET https://host{number}.example.net/v1/**" for number in range(rules - 1)]
    return SandboxGuard(SandboxPolicy.locked_down().allow_request(*others, "GET https://api.met.no/v1/**"))


def _fresh(guard: SandboxGuard, make: Callable[[str], Any], pattern: str) -> Loop:
    numbers = itertools.count()

    def loop(count: int) -> float:
        urls = [make(pattern.format(next(numbers))) for _ in range(count)]
        start = cpu_time()
        for url in urls:
            guard.check_request("GET", url)
        return cpu_time() - start

    return loop


def _denied(guard: SandboxGuard, make: Callable[[str], Any]) -> Loop:
    numbers = itertools.count()

    def loop(count: int) -> float:
        urls = [make(f"https://api.met.no/v2/place{next(numbers)}") for _ in range(count)]
        start = cpu_time()
        for url in urls:
            with suppress(NetworkDenied):
                guard.check_request("GET", url)
        return cpu_time() - start

    return loop


def _parse() -> Loop:
    numbers = itertools.count()

    def loop(count: int) -> float:
        texts = [f"https://api.met.no/v1/parse{next(numbers)}" for _ in range(count)]
        start = cpu_time()
        for text in texts:
            httpx.URL(text)
        return cpu_time() - start

    return loop


def _ssrfguard(budget: Budget) -> Row:
    claim = "check_request(str) not seen, against ssrfguard's check_url"
    package = peer("ssrfguard")
    if isinstance(package, str):
        return Row(claim, reason=package)
    guard, policy = _guard(10), package.Policy()
    theirs, ours = version("ssrfguard"), "check_request"
    numbers = itertools.count()

    def check_url(count: int) -> float:
        urls = [f"https://api.met.no/v1/peer{next(numbers)}" for _ in range(count)]
        start = cpu_time()
        for url in urls:
            policy.check_url(url)
        return cpu_time() - start

    times = interleave(budget, {ours: _fresh(guard, str, "https://api.met.no/v1/place{}"), theirs: check_url})
    return Row(claim, times[ours], times[theirs])


def _by_rules(budget: Budget) -> Growth:
    sizes = [10, 100, 1_000, 10_000, *([] if budget.quick else [100_000, 1_000_000])]
    loops: dict[str, Loop] = {EMPTY: empty_call()}
    for size in sizes:
        guard = _guard(size)
        loops[f"seen {size}"] = statement("guard.check_request('GET', url)", guard=guard, url=httpx.URL(_URL))
        loops[f"new {size}"] = _fresh(guard, httpx.URL, "https://api.met.no/v1/place{}")
        loops[f"denied {size}"] = _denied(guard, httpx.URL)
    times = interleave(budget, loops, rounds=budget.curve)
    curves = {"seen": "URL seen before", "new": "URL not seen before", "denied": "denied, with its exception"}
    return Growth(
        "check_request by number of rules",
        "rules",
        (
            *(Series(name, tuple((size, times[f"{key} {size}"]) for size in sizes)) for key, name in curves.items()),
            Series("an empty call (N)", tuple((size, times[EMPTY]) for size in sizes)),
        ),
    )
