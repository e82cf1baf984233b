"""Attenuation: a guard for capabilities that a plugin narrows and passes on.

A narrowed guard allows a target only if both the guard it narrows and its own rules allow it. So it never allows more
than that guard, for any rules, and also when that guard's policy changes.
"""

import os
from collections.abc import Sequence
from typing import Any

from nyx_stream.guard.compiled_policy import CompiledPolicy
from nyx_stream.guard.decision import OUTSIDE, Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.guard import SandboxGuard, path_text
from nyx_stream.policy import PathRule, RequestRule, SandboxPolicy
from nyx_stream.policy.coverage import covers


class NarrowedGuard(SandboxGuard):
    """Allows what both the guard `wide` and its own rules allow. Its policy is that of `wide`; it has no cache."""

    __slots__ = ("_own", "_wide")

    def __init__(
        self, wide: SandboxGuard, *, request: Sequence[RequestRule] = (), paths: Sequence[PathRule] = ()
    ) -> None:
        # The base's constructor would compile a policy; every decision here asks `wide` first instead.
        self.plugin = wide.plugin
        self._audit = wide._audit
        self._places = wide._places
        self._flavour = wide._flavour
        self._wide = wide
        self._own = CompiledPolicy(
            SandboxPolicy(request=tuple(request), paths=tuple(paths)), None, wide._places, wide._flavour
        )

    @property
    def _rules(self) -> CompiledPolicy:
        return self._wide._rules

    def update(self, policy: SandboxPolicy) -> None:
        """Raises `TypeError`: update the guard that this one narrows."""
        raise TypeError("a narrowed guard can't be updated; update the guard that it narrows")

    def check_connect(self, host: str, port: int) -> None:
        self._finish_connect(host, port, self.decide_connect(host, port))

    def check_path(self, path: str | os.PathLike[str], mode: str = "r") -> None:
        text = path_text(path)
        self._finish_path(text, mode, self.judge_path(text, mode))

    def decide_connect(self, host: str, port: int) -> Decision:
        """Denies every bare connection: it could carry any request."""
        decision = self._wide.decide_connect(host, port)
        return OUTSIDE if decision.allowed else decision

    def decide_addresses(self, host: str, port: int, addresses: Sequence[str]) -> Decision:
        return self._narrow(self._wide.decide_addresses(host, port, addresses), self._own.dial(host, port))

    def judge_request(self, method: str, url: Any) -> RequestVerdict:
        verdict = self._wide.judge_request(method, url)
        if not verdict.decision.allowed:
            return verdict
        # Decides on the parts that will be sent, and doesn't read the URL a second time.
        host = f"[{verdict.host}]" if ":" in verdict.host else verdict.host
        sent = f"{verdict.scheme}://{host}:{verdict.port}{verdict.target.decode('ascii')}"
        own = self._own.request(verdict.method, sent).decision
        return verdict if own.allowed else RequestVerdict(OUTSIDE, verdict.method)

    def judge_origin(self, host: str, port: int) -> Decision:
        return self._narrow(self._wide.judge_origin(host, port), self._own.dial(host, port))

    def judge_path(self, path: str | os.PathLike[str], mode: str = "r") -> PathVerdict:
        text = path_text(path)
        verdict = self._wide.judge_path(text, mode)
        if not verdict.decision.allowed or self._own.path(text, mode).decision.allowed:
            return verdict
        return PathVerdict(OUTSIDE, verdict.path)

    def holds(self, rule: RequestRule) -> bool:
        return self._wide.holds(rule) and any(covers(own, rule) for own in self._own.policy.request)

    @staticmethod
    def _narrow(wide: Decision, own: Decision) -> Decision:
        return OUTSIDE if wide.allowed and not own.allowed else wide
