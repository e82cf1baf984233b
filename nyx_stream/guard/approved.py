"""Rules that were approved while a plugin runs: looked at where no rule of the policy itself allows. Pure.

Each is compiled by itself, so that one that is used up, or over, hides no other.
"""

from collections.abc import Iterable, Sequence

from nyx_core.beneath.text import Flavour
from nyx_stream.guard.decision import ApprovedDecision, Decision
from nyx_stream.guard.report_only import Endpoint, Rule
from nyx_stream.guard.request_table import Origin
from nyx_stream.guard.rules import Rules
from nyx_stream.policy import Mode, PathRule, SandboxPolicy
from nyx_stream.policy.approval import ApprovedSource


class ApprovedRules:
    """What was approved. Each call returns the decision of an approval, or `None` where there is none."""

    __slots__ = ("_each",)

    def __init__(self, policy: SandboxPolicy, flavour: Flavour) -> None:
        self._each = (
            *(Rules([rule], [], [], flavour) for rule in policy.connect),
            *(Rules([], [rule], [], flavour) for rule in policy.request),
            *(Rules([], [], [rule], flavour) for rule in policy.paths),
        )

    def endpoint(self, host: str, port: int, allows: Endpoint) -> Decision | None:
        """For a bare connection or an origin, by what allows it."""
        return _best(_decisions(allows(own, host, port) for own in self._each))

    def request(self, origin: Origin, method: str, path: str) -> Decision | None:
        """For a request."""
        return _best(_decisions(own.allows_request(origin, method, path) for own in self._each))

    def path(self, key: str, mode: Mode) -> tuple[Decision | None, PathRule | None]:
        """For a path, with the rule below whose prefix it is opened."""
        found = {_decision(rule): rule for own in self._each if (rule := own.allows_path(key, mode)) is not None}
        best = _best(list(found))
        return best, None if best is None else found[best]

    def lists_address(self, version: int, number: int, address: str, port: int) -> bool:
        """Whether one that is in force, and for more than one operation, names an address itself, or its network."""
        listed = _decisions(own.lists_address(version, number, address, port) for own in self._each)
        return any(not own.ticket.once and own.ticket.over is None for own in listed)


def _best(found: Sequence[ApprovedDecision]) -> ApprovedDecision | None:
    """Returns the first that is good for something; failing that, one that will say that it is not."""
    return next((own for own in found if own.ticket.over is None), found[0] if found else None)


def _decisions(rules: Iterable[Rule | None]) -> list[ApprovedDecision]:
    return [_decision(rule) for rule in rules if rule is not None]


def _decision(rule: Rule) -> ApprovedDecision:
    source = rule.source
    if type(source) is not ApprovedSource:
        raise TypeError(f"nobody approved the rule {rule.text}")
    return ApprovedDecision(True, rule.text, f"allowed by the rule, {source}", source.ticket)
