"""Report-only rules: what they would deny is allowed, and audited as a would-be denial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.errors import NetworkDenied, PolicyError
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Plugin, Server, reply

FILE = """
[allow]
connect = ["*.example.com"]
request = ["https://api.met.no/v1/**"]
write = ["/srv/shared"]
[deny]
request = ["https://api.met.no/v1/secret"]

[[rules]]
mode = "report"
[rules.allow]
request = ["GET https://api.met.no/v2/**"]
read = ["/etc/zoneinfo"]
[rules.deny]
connect = ["old.example.com"]
path = ["/srv/shared/keys"]

[[rules]]
mode = "report"
[rules.deny]
request = ["DELETE https://api.met.no/**"]
"""


@pytest.fixture
def policy(tmp_path):
    """Enforced rules, and two tables of rules on trial."""
    (tmp_path / "policy.toml").write_text(FILE)
    return SandboxPolicy.from_toml(tmp_path / "policy.toml")


def requested(guard: SandboxGuard, method: str, url: str):
    """The decision on a request, as (verdict, rule)."""
    decision = guard.decide_request(method, url)
    return ("reported" if decision.reported else decision.allowed), decision.rule


def test_each_verdict_names_its_rule(policy):
    """Allowed, denied and would-be denied requests each name the rule that speaks."""
    guard = SandboxGuard(policy)
    enforced = "https://api.met.no/v1/**"
    assert requested(guard, "GET", "https://api.met.no/v1/x") == (True, enforced)
    assert requested(guard, "GET", "https://api.met.no/v1/secret") == (False, "https://api.met.no/v1/secret")
    assert requested(guard, "DELETE", "https://api.met.no/v1/x") == ("reported", "DELETE https://api.met.no/**")
    assert requested(guard, "GET", "https://api.met.no/v2/x") == ("reported", "GET https://api.met.no/v2/**")
    assert requested(guard, "POST", "https://api.met.no/v2/x") == (False, None)


def test_connections_and_paths_are_tried_as_well(policy):
    """Hosts and prefixes on trial are reported, and the prefix that opens a path is the one that allows it."""
    guard = SandboxGuard(policy)
    assert guard.decide_connect("new.example.com", 1).reason == "allowed by the rule"
    assert guard.decide_connect("old.example.com", 1).reason == "report only: denied by the rule old.example.com"
    assert guard.judge_origin("old.example.com", 443).reported
    assert guard.decide_addresses("old.example.com", 443, ["93.184.215.14"]).reported
    kept = guard.judge_path("/srv/shared/keys/a", "rw")
    assert kept.decision.reported
    assert kept.decision.rule == "/srv/shared/keys"
    assert kept.prefix is not None
    assert kept.prefix.prefix == "/srv/shared"
    tried = guard.judge_path("/etc/zoneinfo/UTC")
    assert tried.decision.reported
    assert tried.prefix is not None
    assert tried.prefix.prefix == "/etc/zoneinfo"
    assert not guard.decide_path("/etc/zoneinfo/UTC", "rw").allowed


def test_an_address_on_trial_is_reported():
    """A private answer that only a rule on trial lists is dialled and reported; without it, it is refused."""
    policy = SandboxPolicy.locked_down().allow_connect_host("in.example.com")
    trial = policy.report_only(SandboxPolicy.locked_down().allow_connect_host("10.0.0.0/8"))
    found = SandboxGuard(trial).decide_addresses("in.example.com", 80, ["10.0.0.7"])
    assert found.reported
    assert found.rule == "10.0.0.0/8"
    assert not SandboxGuard(policy).decide_addresses("in.example.com", 80, ["10.0.0.7"]).allowed
    assert not SandboxGuard(trial).decide_addresses("in.example.com", 80, ["10.0.0.7", "192.168.0.1"]).allowed


def test_it_is_printed_and_read_back(policy, tmp_path):
    """`to_toml` keeps what is on trial apart from what is enforced."""
    (tmp_path / "again.toml").write_text(policy.to_toml())
    assert SandboxPolicy.from_toml(tmp_path / "again.toml") == policy
    assert policy.report is not None
    assert len(policy.report.denied_request) == len(policy.report.denied_connect) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[rules]]\nmode = "enforce"\n', "report"),
        ("[[rules]]\n[rules.allow]\n", "mode"),
        ('[[rules]]\nmode = "report"\n[rules.allow]\nenv = ["TZ"]\n', "env"),
        ('[[rules]]\nmode = "report"\n[rules.deny]\nconnect = ["*"]\n', r"policy.toml:4: '\*' is allowed only"),
    ],
)
def test_faults_of_a_table_are_told(tmp_path, text, why):
    """The only mode is report, and rules on trial are rules like others."""
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(PolicyError, match=why):
        SandboxPolicy.from_toml(tmp_path / "policy.toml")


def test_rules_on_trial_have_no_limits_or_variables():
    """The builder refuses what no trial can mean."""
    with pytest.raises(PolicyError, match="report-only rules"):
        SandboxPolicy.locked_down().report_only(SandboxPolicy.locked_down().allow_env("TZ"))


async def test_a_would_be_denial_is_done_and_audited_as_such():
    """The request is sent, and the record says that it was allowed for report only, and by which rule."""
    async with Server(reply(200, b"done")) as server:
        here = f"http://127.0.0.1:{server.port}"
        rules = SandboxPolicy.locked_down().allow_request(f"GET {here}/tried/**").deny_request(f"{here}/doubted")
        policy = SandboxPolicy.locked_down().allow_request(f"GET {here}/doubted", f"GET {here}/plain")
        plugin = Plugin(policy.report_only(rules))
        async with plugin.client() as client:
            for path in ("plain", "doubted", "tried/x"):
                assert (await client.get(f"{here}/{path}")).text == "done"
            with pytest.raises(NetworkDenied, match="no rule allows it"):
                await client.get(f"{here}/other")
    seen = [(e.allowed, e.reason, e.rule) for e in plugin.events if e.capability == "http"]
    assert seen == [
        (True, "allowed by the rule", f"GET {here}/plain"),
        (True, f"report only: denied by the rule {here}/doubted", f"{here}/doubted"),
        (True, "report only: no rule allows it", f"GET {here}/tried/**"),
        (False, "no rule allows it", None),
    ]


HOSTS = st.sampled_from(["a.example.com", "b.example.com", "c.example.org", "10.0.0.1", "10.0.1.1"])
RULES = st.lists(st.sampled_from(["a.example.com", "*.example.com", "c.example.org:443", "10.0.0.0/24"]), max_size=3)


@given(allow=RULES, deny=RULES, tried=RULES, doubted=RULES, host=HOSTS, port=st.sampled_from([80, 443]))
def test_a_trial_never_denies_and_never_beats_a_denial(allow, deny, tried, doubted, host, port):
    """With rules on trial, all is allowed that was, nothing that an enforced rule denies, and only their own beyond."""
    enforced = SandboxPolicy.locked_down().allow_connect_host(*allow).deny_connect_host(*deny)
    trial = SandboxPolicy.locked_down().allow_connect_host(*tried).deny_connect_host(*doubted)
    before = SandboxGuard(enforced).decide_connect(host, port)
    after = SandboxGuard(enforced.report_only(trial)).decide_connect(host, port)
    would = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host(*tried)).decide_connect(host, port).allowed
    wont = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host(*doubted)).decide_connect(host, port).allowed
    if before.allowed:
        assert after.allowed
        assert after.reported is wont
    else:
        assert after.allowed is after.reported is (before.rule is None and would)
