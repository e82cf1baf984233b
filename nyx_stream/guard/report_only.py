"""Rules on trial: what they would change is done as before, or allowed, and said in the decision. Pure.

A deny rule on trial lets pass what it would deny; an allow rule on trial lets pass what no enforced rule allows. An
enforced deny rule, and what the manifest does not ask for, are no matter of a trial.
"""

from collections.abc import Callable
from dataclasses import replace

from nyx_core.beneath.text import Flavour
from nyx_stream.guard.decision import REPORT_ONLY, Decision
from nyx_stream.guard.request_table import Origin
from nyx_stream.guard.rules import Rules
from nyx_stream.policy import ConnectRule, Mode, PathRule, RequestRule, SandboxPolicy

Rule = ConnectRule | RequestRule | PathRule

Endpoint = Callable[[Rules, str, int], ConnectRule | RequestRule | None]
"""What allows a host at a port: `Rules.allows_connection` or `Rules.allows_dialling`."""


class ReportOnlyRules:
    """The compiled report-only rules of a policy. Each call gets the decision without them, returns the one with."""

    __slots__ = ("allowed", "denied")

    def __init__(self, rules: SandboxPolicy, flavour: Flavour) -> None:
        self.allowed = Rules(rules.connect, rules.request, rules.paths, flavour)
        self.denied = Rules(rules.denied_connect, rules.denied_request, rules.denied_paths, flavour)

    def endpoint(self, decision: Decision, host: str, port: int, allows: Endpoint) -> Decision:
        """For a bare connection or an origin, by what allows it."""
        if decision.allowed:
            return _denied(decision, self.denied.denies_host(host, port))
        return _allowed(decision, allows(self.allowed, host, port))

    def request(self, decision: Decision, origin: Origin, method: str, path: str) -> Decision:
        """For a request."""
        if decision.allowed:
            return _denied(decision, self.denied.denies_request(origin, method, path))
        return _allowed(decision, self.allowed.allows_request(origin, method, path))

    def path(self, decision: Decision, rule: PathRule | None, key: str, mode: Mode) -> tuple[Decision, PathRule | None]:
        """For a path, with the rule below whose prefix it is opened."""
        if decision.allowed:
            return _denied(decision, self.denied.paths.covering(key)), rule
        tried = self.allowed.allows_path(key, mode)
        return _allowed(decision, tried), tried

    def address(self, refused: Decision | None, version: int, number: int, address: str, port: int) -> Decision | None:
        """For one answer of a look-up, refused because no rule lists it or, with `None`, accepted."""
        if refused is not None:
            return _allowed(refused, self.allowed.lists_address(version, number, address, port))
        rule = self.denied.hosts.match_any_spelling(version, number, port)
        return None if rule is None else _denied(Decision(True, None, ""), rule)


def _denied(decision: Decision, rule: Rule | None) -> Decision:
    if rule is None:
        return decision
    # Replaced, and not made anew: what was approved once stays so.
    return replace(decision, rule=rule.text, reason=f"{REPORT_ONLY}denied by the rule {rule.text}")


def _allowed(decision: Decision, rule: Rule | None) -> Decision:
    if rule is None:
        return decision
    return Decision(True, rule.text, f"{REPORT_ONLY}{decision.reason}")
