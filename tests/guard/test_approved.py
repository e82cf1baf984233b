"""What a guard makes of approved rules: an addition that deny rules beat, and good for what its ticket says."""

import time
from dataclasses import replace

import pytest

from nyx_stream.guard import NarrowedGuard, SandboxGuard
from nyx_stream.policy import ConnectRule, PathRule, RequestRule, SandboxPolicy
from nyx_stream.policy.approval import ApprovedSource, Ticket

URL = "https://a.example/v1/x"


def approved(policy, *rules, ticket=None):
    """The policy with rules that were approved."""
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
    """What each kind of question gets."""
    return {
        "connect": guard.decide_connect("a.example", 443),
        "request": guard.decide_request("GET", URL),
        "dial": guard.judge_origin("a.example", 443),
        "path": guard.decide_path("/d/x", "rw"),
    }


def test_an_approved_rule_allows_and_says_so():
    """Every kind of question, and nothing beyond it."""
    guard = SandboxGuard(approved(NOTHING, CONNECT, REQUEST, PATH), flavour="posix")
    for decision in decide(guard).values():
        assert decision.allowed
        assert decision.reason == "allowed by the rule, approved always"
    assert not guard.decide_connect("b.example", 443).allowed
    assert not guard.decide_path("/e", "r").allowed
    assert guard.judge_path("/d/x", "rw").below == "x"


def test_a_deny_rule_beats_what_was_approved():
    """As it beats everything."""
    policy = NOTHING.deny_connect_host("a.example").deny_path_prefix("/d")
    decisions = decide(SandboxGuard(approved(policy, CONNECT, REQUEST, PATH), flavour="posix"))
    assert not any(decision.allowed for decision in decisions.values())


def test_what_the_policy_itself_allows_uses_up_nothing():
    """Its own rules are looked at first."""
    ticket = Ticket(once=True)
    policy = NOTHING.allow_request("https://a.example")
    guard = SandboxGuard(approved(policy, REQUEST, ticket=ticket))
    assert guard.decide_request("GET", URL).use().allowed
    assert ticket.invalid is None


def test_a_ticket_for_once_is_taken_once_whatever_was_remembered():
    """A verdict from memory is judged again where it is used."""
    guard = SandboxGuard(approved(NOTHING, REQUEST, ticket=Ticket(once=True)))
    first, second = guard.judge_request("GET", URL), guard.judge_request("GET", URL)
    assert first is second
    assert first.decision.use().allowed
    refused = second.decision.use()
    assert (refused.allowed, refused.rule) == (False, REQUEST.text)
    assert "used up" in refused.reason
    assert guard.judge_origin("a.example", 443).allowed, "what it was used for has yet to be dialled"


def test_what_is_used_up_hides_no_other_approval():
    """Of two that cover a target, the one that is still good counts."""
    used, good = Ticket(once=True), Ticket()
    used.use()
    rules = [
        replace(rule, source=ApprovedSource("approved", ticket=t)) for rule, t in ((REQUEST, used), (REQUEST, good))
    ]
    guard = SandboxGuard(replace(NOTHING, approved=SandboxPolicy(request=tuple(rules))))
    assert guard.decide_request("GET", URL).use().allowed


def test_the_clock_ends_an_approval_before_any_timer():
    """Where the operation is done, and with a verdict from memory."""
    ticket = Ticket(until=time.time() + 3600)
    guard = SandboxGuard(approved(NOTHING, REQUEST, ticket=ticket))
    decision = guard.judge_request("GET", URL).decision
    assert decision.use().allowed
    ticket.until = time.time() - 1
    assert decision.use().reason == "its approval is over"


def test_a_rule_on_trial_frees_nobody_from_his_ticket():
    """A would-be denial of what was approved once is still for once."""
    policy = NOTHING.report_only(NOTHING.deny_connect_host("a.example").deny_request("https://a.example"))
    guard = SandboxGuard(approved(policy, REQUEST, ticket=Ticket(once=True)))
    decision = guard.decide_request("GET", URL)
    assert decision.reported
    assert decision.use().allowed
    assert not decision.use().allowed


def test_what_was_approved_can_be_handed_on_and_no_more():
    """A narrowed guard shares the ticket."""
    wide = SandboxGuard(approved(NOTHING, REQUEST, ticket=Ticket(once=True)))
    narrow = NarrowedGuard(wide, request=[RequestRule.parse("GET https://a.example/v1/x")])
    assert wide.holds(RequestRule.parse("GET https://a.example/v1/x"))
    assert narrow.decide_request("GET", URL).use().allowed
    assert not wide.decide_request("GET", URL).use().allowed


def test_a_rule_that_nobody_approved_is_a_fault_of_the_host():
    """It does not pass for one."""
    guard = SandboxGuard(replace(NOTHING, approved=SandboxPolicy(connect=(CONNECT,))))
    with pytest.raises(TypeError, match="was not approved"):
        guard.decide_connect("a.example", 443)


def test_checks_without_an_audit_do_not_outlive_an_approval():
    """What was remembered goes with the rules."""
    guard = SandboxGuard(approved(NOTHING, CONNECT, PATH), flavour="posix")
    guard.check_connect("a.example", 443)
    guard.check_path("/d/x", "rw")
    guard.update(NOTHING)
    for check in (lambda: guard.check_connect("a.example", 443), lambda: guard.check_path("/d/x", "rw")):
        with pytest.raises(PermissionError):
            check()


@pytest.mark.parametrize("ticket", [Ticket(once=True), Ticket(until=0.0)])
def test_an_address_approved_once_or_no_more_opens_no_private_network_to_names(ticket):
    """Dialling a name that a rule of the policy allows uses no approval up, so none of these is one for it."""
    policy = SandboxPolicy.locked_down().allow_connect_host("name.example")
    network = ConnectRule.parse("10.0.0.0/8")
    assert SandboxGuard(approved(policy, network)).decide_addresses("name.example", 80, ["10.0.0.5"]).allowed
    guard = SandboxGuard(approved(policy, network, ticket=ticket))
    assert not guard.decide_addresses("name.example", 80, ["10.0.0.5"]).allowed
    assert guard.decide_addresses("10.0.0.5", 80, ["10.0.0.5"]).allowed
