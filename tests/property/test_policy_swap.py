"""Laws of a change of policy: a check in progress sees the old policy or the new one, never a mix.

One test makes the change at every line of every check, which is deterministic; the other uses threads.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nyx_stream.audit import AuditEvent
from nyx_stream.plugin_sandbox import SandboxDenied, SandboxGuard, SandboxPolicy
from nyx_stream.policy import RequestRule
from tests.guard.caches import cache_of

CONNECT = st.sampled_from(
    ["a.z.example", "*.z.example", "b.z.example:443", "*.y.z.example", "10.0.0.0/8", "10.0.0.7", "127.0.0.1", "::1"]
)
REQUEST = st.sampled_from(
    [
        "GET https://a.z.example/v1/**",
        "https://a.z.example",
        "POST https://*.z.example/v1/*",
        "http://b.z.example:8080/x",
        "GET,HEAD https://a.z.example/v1/deep/**",
    ]
)
PREFIX = st.sampled_from(["/d", "/d/x", "/d/x/y", "/e"])


@st.composite
def policies(draw: st.DrawFn) -> SandboxPolicy:
    """A policy with rules of every kind, and limits."""
    policy = SandboxPolicy.locked_down()
    policy = policy.allow_connect_host(*draw(st.lists(CONNECT, max_size=3)))
    policy = policy.deny_connect_host(*draw(st.lists(CONNECT, max_size=2)))
    policy = policy.allow_request(*draw(st.lists(REQUEST, max_size=3)))
    policy = policy.deny_request(*draw(st.lists(REQUEST, max_size=2)))
    policy = policy.allow_path_prefix(*draw(st.lists(PREFIX, max_size=3)), mode=draw(st.sampled_from(["r", "rw"])))
    policy = policy.deny_path_prefix(*draw(st.lists(PREFIX, max_size=2)))
    return policy.with_limits(concurrency=draw(st.integers(1, 9)), connections=draw(st.integers(1, 9)))


Check = Callable[[SandboxGuard], object]


def asked(name: str, *arguments: object) -> Check:
    """Returns a call of one method of a guard."""

    def ask(guard: SandboxGuard) -> object:
        return getattr(guard, name)(*arguments)

    return ask


def limits(guard: SandboxGuard) -> object:
    """Returns all limits in force."""
    return guard.limits


HOSTS = [("a.z.example", 443), ("b.z.example", 80), ("c.y.z.example", 443), ("10.0.0.7", 80), ("127.0.0.1", 1)]
URLS = [
    "https://a.z.example/v1/x",
    "https://a.z.example/v1/deep/x",
    "http://b.z.example:8080/x",
    "https://b.z.example/",
]
PATHS = ["/d/x/y/z", "/d/f", "/e", "/other"]
CHECKS: list[Check] = [
    *(asked("check_connect", *host) for host in HOSTS),
    *(asked("decide_connect", *host) for host in HOSTS),
    *(asked("judge_origin", *host) for host in HOSTS),
    asked("decide_addresses", "a.z.example", 443, ["93.184.215.14", "10.0.0.7"]),
    *(asked("check_request", method, url) for method in ("GET", "POST") for url in URLS),
    *(asked("judge_request", "GET", url) for url in URLS),
    *(asked("check_path", path, mode) for path in PATHS for mode in ("r", "rw")),
    *(asked("judge_path", path, "r") for path in PATHS),
    *(asked("is_denied_path", path) for path in PATHS),
    asked("holds", RequestRule.parse("GET https://a.z.example/v1/x")),
    limits,
]


def outcome(check: Check, guard: SandboxGuard) -> tuple[object, ...]:
    """Returns the result of a check, or the rule and the reason of its denial."""
    try:
        return ("value", check(guard))
    except SandboxDenied as denied:
        return ("denied", denied.rule, denied.reason)


def outcomes(policy: SandboxPolicy, *, audited: bool) -> list[tuple[object, ...]]:
    """Returns the outcome of every check under a policy."""
    return [outcome(check, a_guard(policy, [] if audited else None)) for check in CHECKS]


def a_guard(policy: SandboxPolicy, events: list[AuditEvent] | None) -> SandboxGuard:
    """Returns a guard, with an audit or without."""
    return SandboxGuard(policy, audit=None if events is None else events.append, flavour="posix")


@contextmanager
def interrupted(line: int, change: Callable[[], object]) -> Iterator[list[int]]:
    """Makes the change when the code inside reaches the given line; yields the number of lines that ran."""
    lines = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if "nyx_stream/guard/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines[0] += 1
            if lines[0] == line:
                sys.settrace(None)
                change()
                sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


OPEN = SandboxPolicy.locked_down().allow_connect_host("*.z.example").allow_path_prefix("/d").with_limits(connections=1)
SHUT = SandboxPolicy.locked_down().allow_connect_host("a.z.example").deny_path_prefix("/d/x").deny_request(
    "https://a.z.example"
)  # fmt: skip


@settings(max_examples=5, deadline=None)  # some two thousand changes each
@given(policies(), policies(), st.booleans(), st.booleans())
@example(OPEN, SHUT, False, True)
@example(SHUT, OPEN, True, False)
def test_a_change_at_any_line_of_a_check_is_atomic(
    old: SandboxPolicy, new: SandboxPolicy, audited: bool, warm: bool
) -> None:
    """The outcome is that of one of the two policies; afterwards it is that of the new one."""
    under_old, under_new = outcomes(old, audited=audited), outcomes(new, audited=audited)
    for check, one, other in zip(CHECKS, under_old, under_new, strict=True):
        line, ran = 0, 1
        while line < ran:
            line += 1
            events: list[AuditEvent] = []
            guard = a_guard(old, events if audited else None)
            if warm:  # so that the check uses the cache
                outcome(check, guard)
                events.clear()
            with interrupted(line, partial(guard.update, new)) as lines:
                found = outcome(check, guard)
            ran = lines[0]
            assert found in (one, other)
            for event in events:
                assert not event.allowed or found[0] == "value"
                assert found[0] == "value" or (event.rule, event.reason) == found[1:]
            if ran >= line:  # the change was made
                assert outcome(check, guard) == other


@settings(max_examples=15, deadline=None)
@given(policies(), policies(), st.booleans())
@example(OPEN, SHUT, False)
def test_threads_that_check_during_a_swap_see_one_of_both_policies(
    old: SandboxPolicy, new: SandboxPolicy, audited: bool
) -> None:
    """No thread gets an outcome that neither policy has; after the last swap, all get that of the last policy."""
    expected = [
        set(map(repr, pair))
        for pair in zip(outcomes(old, audited=audited), outcomes(new, audited=audited), strict=True)
    ]
    guard = a_guard(old, [] if audited else None)
    over = threading.Event()
    wrong: list[object] = []

    def hammer() -> None:
        while not over.is_set():
            for check, allowed in zip(CHECKS, expected, strict=True):
                found = outcome(check, guard)
                if repr(found) not in allowed:
                    wrong.append(found)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    with switching_often():
        for thread in threads:
            thread.start()
        for _ in range(25):
            guard.update(new)
            guard.update(old)
        guard.update(new)
        last = [outcome(check, guard) for check in CHECKS * 2]
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert last == outcomes(new, audited=audited) * 2
    assert [outcome(check, guard) for check in CHECKS] == outcomes(new, audited=audited)


@contextmanager
def switching_often() -> Iterator[None]:
    """Makes the interpreter switch threads after a few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_the_law_finds_a_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law fails for a guard that replaces the rules but keeps the cache."""

    def torn(guard: SandboxGuard, policy: SandboxPolicy) -> None:
        cache_of(guard).rules = cache_of(SandboxGuard(policy, flavour="posix")).rules

    monkeypatch.setattr(SandboxGuard, "update", torn)
    with pytest.raises(AssertionError):
        test_a_change_at_any_line_of_a_check_is_atomic.hypothesis.inner_test(OPEN, SHUT, False, True)
