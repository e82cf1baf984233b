"""Approved rules in the guard: they add to the policy, deny rules beat them, and they end with their ticket."""

import time
from dataclasses import replace

import pytest

from nyx_stream.guard import NarrowedGuard, SandboxGuard
from nyx_stream.policy import ConnectRule, PathRule, RequestRule, SandboxPolicy
from nyx_stream.policy.approval import ApprovedSource, Ticket

URL = "https://a.example/v1/x"


def approved(policy, *rules, ticket=None):
    """Returns the policy with approved rules added."""
    ticket = ticket or Ticket()
    kinds = {ConnectRule: [], RequestRule: [], PathRule: []}
    for rule in rules:
        kinds[type(rule)].append(replace(rule, source=ApprovedSource("approved always", ticket=ticket)))
    more = SandboxPolicy(tuple(kinds[ConnectRule]), (), tuple(kinds[RequestRule]), (), tuple(kinds[PathRule]))
    return replace(policy, approved=more)


NOTHING = SandboxPolicy.locked_down()
CONNECT, REQUEST = ConnectRule.parse("a.example"), RequestRule.parse("GET https://a.example/v1/**")
PATH = PathRule.parse("/d", "rw")


def decide(guard):
    """Returns the decision on each kind of target."""
    return {
        "connect": guard.decide_connect("a.example", 443),
        "request": guard.decide_request("GET", URL),
        "dial": guard.judge_origin("a.example", 443),
        "path": guard.decide_path("/d/x", "rw"),
    }


def test_an_approved_rule_allows_and_is_named_as_approved():
    """It allows its own kind of target, and nothing else."""
    guard = SandboxGuard(approved(NOTHING, CONNECT, REQUEST, PATH), flavour="posix")
    for decision in decide(guard).values():
        assert decision.allowed
        assert decision.reason == "allowed by the rule, approved always"
    assert not guard.decide_connect("b.example", 443).allowed
    assert not guard.decide_path("/e", "r").allowed
    assert guard.judge_path("/d/x", "rw").below == "x"


def test_a_deny_rule_beats_an_approved_rule():
    """No kind of approved rule allows a denied target."""
    policy = NOTHING.deny_connect_host("a.example").deny_path_prefix("/d")
    decisions = decide(SandboxGuard(approved(policy, CONNECT, REQUEST, PATH), flavour="posix"))
    assert not any(decision.allowed for decision in decisions.values())


def test_a_target_that_the_policy_allows_uses_up_no_approval():
    """The policy's own rules are checked first."""
    ticket = Ticket(once=True)
    policy = NOTHING.allow_request("https://a.example")
    guard = SandboxGuard(approved(policy, REQUEST, ticket=ticket))
    assert guard.decide_request("GET", URL).use().allowed
    assert ticket.invalid is None


def test_a_ticket_for_one_use_is_used_once_also_from_the_cache():
    """A cached verdict checks its approval again when it is used."""
    guard = SandboxGuard(approved(NOTHING, REQUEST, ticket=Ticket(once=True)))
    first, second = guard.judge_request("GET", URL), guard.judge_request("GET", URL)
    assert first is second
    assert first.decision.use().allowed
    refused = second.decision.use()
    assert (refused.allowed, refused.rule) == (False, REQUEST.text)
    assert "used up" in refused.reason
    assert guard.judge_origin("a.example", 443).allowed, "the request that used it has yet to be dialled"


def test_a_used_up_approval_hides_no_other_approval():
    """If two approvals cover a target, the valid one counts."""
    used, good = Ticket(once=True), Ticket()
    used.use()
    rules = [
        replace(rule, source=ApprovedSource("approved", ticket=t)) for rule, t in ((REQUEST, used), (REQUEST, good))
    ]
    guard = SandboxGuard(replace(NOTHING, approved=SandboxPolicy(request=tuple(rules))))
    assert guard.decide_request("GET", URL).use().allowed


def test_the_clock_ends_an_approval_before_any_timer():
    """An approval that has expired is refused when it is used, also with a cached verdict."""
    ticket = Ticket(until=time.time() + 3600)
    guard = SandboxGuard(approved(NOTHING, REQUEST, ticket=ticket))
    decision = guard.judge_request("GET", URL).decision
    assert decision.use().allowed
    ticket.until = time.time() - 1
    assert decision.use().reason == "its approval is over"


def test_a_report_only_rule_keeps_the_ticket_of_an_approval():
    """A would-be denial of a target that was approved for one use still allows one use."""
    policy = NOTHING.report_only(NOTHING.deny_connect_host("a.example").deny_request("https://a.example"))
    guard = SandboxGuard(approved(policy, REQUEST, ticket=Ticket(once=True)))
    decision = guard.decide_request("GET", URL)
    assert decision.reported
    assert decision.use().allowed
    assert not decision.use().allowed


def test_a_narrowed_guard_shares_the_ticket_of_an_approval():
    """A use through the narrowed guard uses up the approval of the wide one."""
    wide = SandboxGuard(approved(NOTHING, REQUEST, ticket=Ticket(once=True)))
    narrow = NarrowedGuard(wide, request=[RequestRule.parse("GET https://a.example/v1/x")])
    assert wide.holds(RequestRule.parse("GET https://a.example/v1/x"))
    assert narrow.decide_request("GET", URL).use().allowed
    assert not wide.decide_request("GET", URL).use().allowed


def test_an_unapproved_rule_among_the_approved_ones_is_an_error():
    """The host must give each approved rule an `ApprovedSource`."""
    guard = SandboxGuard(replace(NOTHING, approved=SandboxPolicy(connect=(CONNECT,))))
    with pytest.raises(TypeError, match="was not approved"):
        guard.decide_connect("a.example", 443)


def test_checks_without_an_audit_do_not_outlive_an_approval():
    """The cache ends with the rules."""
    guard = SandboxGuard(approved(NOTHING, CONNECT, PATH), flavour="posix")
    guard.check_connect("a.example", 443)
    guard.check_path("/d/x", "rw")
    guard.update(NOTHING)
    for check in (lambda: guard.check_connect("a.example", 443), lambda: guard.check_path("/d/x", "rw")):
        with pytest.raises(PermissionError):
            check()


@pytest.mark.parametrize("ticket", [Ticket(once=True), Ticket(until=0.0)])
def test_an_address_approved_for_one_use_or_expired_opens_no_private_network_to_names(ticket):
    """Dialling a name that the policy allows uses up no approval, so it must not rely on one."""
    policy = SandboxPolicy.locked_down().allow_connect_host("name.example")
    network = ConnectRule.parse("10.0.0.0/8")
    assert SandboxGuard(approved(policy, network)).decide_addresses("name.example", 80, ["10.0.0.5"]).allowed
    guard = SandboxGuard(approved(policy, network, ticket=ticket))
    assert not guard.decide_addresses("name.example", 80, ["10.0.0.5"]).allowed
    assert guard.decide_addresses("10.0.0.5", 80, ["10.0.0.5"]).allowed
