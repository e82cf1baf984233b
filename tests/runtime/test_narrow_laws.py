"""The law of narrowing: a narrowed guard never allows what the wide one denies."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.guard import NarrowedGuard, SandboxGuard
from nyx_stream.policy import PathRule, RequestRule, SandboxPolicy

HOSTS = st.sampled_from(["a.com", "b.a.com", "x.b.a.com", "c.net", "127.0.0.1", "evil.example"])
SCHEMES = st.sampled_from(["https", "http"])
TAILS = st.sampled_from(["", "/**", "/v1/**", "/v1/*", "/v1/x", "/v1/x/y"])
TARGETS = st.sampled_from(["/", "/v1/x", "/v1/x/y", "/v1/../v2", "/v1/%2e%2e/v2", "/v2?q=/v1/x", "//v1/x"])
VERBS = st.sampled_from(["GET", "POST", "PURGE", "TRACE"])
RULES = st.builds(
    "{}{}://{}{}".format,
    st.sampled_from(["", "GET ", "GET,POST "]),
    SCHEMES,
    st.sampled_from(["a.com", "*.a.com", "b.a.com", "c.net", "127.0.0.1"]),
    TAILS,
)
CONNECT = st.sampled_from(["a.com", "*.a.com", "c.net:443", "127.0.0.1", "10.0.0.0/8"])
PREFIXES = st.sampled_from(["/d", "/d/a", "/d/a/b", "/e", "/da"])
PATHS = st.sampled_from(["/d", "/d/a", "/d/a/b/c", "/d/a/../x", "a", "a/b", "../e", "/da/x", "/e//x", "", "\0"])
MODES = st.sampled_from(["r", "rw"])


def _wide(request: list[str], connect: list[str], denied: list[str], prefixes: list[tuple[str, str]]) -> SandboxGuard:
    policy = SandboxPolicy.locked_down().allow_request(*request).allow_connect_host(*connect).deny_request(*denied)
    for prefix, mode in prefixes:
        policy = policy.allow_path_prefix(prefix, mode=mode)
    return SandboxGuard(policy, places={"$DATA": "/d"})


WIDE = st.builds(
    _wide,
    st.lists(RULES, max_size=3),
    st.lists(CONNECT, max_size=2),
    st.lists(RULES, max_size=2),
    st.lists(st.tuples(PREFIXES, MODES), max_size=3),
)


Chain = tuple[list[SandboxGuard], SandboxPolicy]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """A guard and two narrowings, one below the other, from arbitrary rules; and the rules of the first as a policy."""
    guards, policies = [draw(WIDE)], []
    for _ in range(2):
        request = [RequestRule.parse(text) for text in draw(st.lists(RULES, max_size=3))]
        paths = [
            PathRule.parse(prefix, mode) for prefix, mode in draw(st.lists(st.tuples(PREFIXES, MODES), max_size=3))
        ]
        guards.append(NarrowedGuard(guards[-1], request=request, paths=paths))
        policies.append(SandboxPolicy(request=tuple(request), paths=tuple(paths)))
    return guards, policies[0]


@given(chains(), VERBS, SCHEMES, HOSTS, TARGETS, PATHS, MODES)
def test_a_narrowed_guard_never_allows_what_the_wide_one_denies(
    chain: tuple[list[SandboxGuard], SandboxPolicy],
    verb: str,
    scheme: str,
    host: str,
    target: str,
    path: str,
    mode: str,
) -> None:
    """For requests, origins, connections, addresses and paths, at every depth."""
    url = f"{scheme}://{host}{target}"
    for wide, narrow in pairwise(chain[0]):
        for allowed, by in (
            (narrow.decide_request(verb, url).allowed, wide.decide_request(verb, url).allowed),
            (narrow.judge_origin(host, 443).allowed, wide.judge_origin(host, 443).allowed),
            (narrow.decide_connect(host, 443).allowed, wide.decide_connect(host, 443).allowed),
            (
                narrow.decide_addresses(host, 443, ["10.0.0.7"]).allowed,
                wide.decide_addresses(host, 443, ["10.0.0.7"]).allowed,
            ),
            (narrow.decide_path(path, mode).allowed, wide.decide_path(path, mode).allowed),
        ):
            assert by or not allowed


@given(chains(), VERBS, SCHEMES, HOSTS, TARGETS, PATHS, MODES)
def test_a_narrowed_guard_allows_exactly_what_both_allow(
    chain: tuple[list[SandboxGuard], SandboxPolicy],
    verb: str,
    scheme: str,
    host: str,
    target: str,
    path: str,
    mode: str,
) -> None:
    """The conjunction, compared with a guard that has only the narrower rules."""
    (wide, narrow, _), policy = chain
    own = SandboxGuard(policy, places={"$DATA": "/d"})
    url = f"{scheme}://{host}{target}"
    both = wide.decide_request(verb, url).allowed and own.decide_request(verb, url).allowed
    assert narrow.decide_request(verb, url).allowed == both
    both = wide.decide_path(path, mode).allowed and own.decide_path(path, mode).allowed
    assert narrow.decide_path(path, mode).allowed == both


@given(WIDE, RULES, VERBS, SCHEMES, HOSTS, TARGETS)
def test_a_rule_that_is_held_is_allowed_but_for_denials(
    wide: SandboxGuard, rule: str, verb: str, scheme: str, host: str, target: str
) -> None:
    """`holds` is false for a rule that covers a request which no rule grants."""
    parsed, url = RequestRule.parse(rule), f"{scheme}://{host}{target}"
    asked = SandboxGuard(SandboxPolicy(request=(parsed,))).decide_request(verb, url).allowed
    if wide.holds(parsed) and asked:
        decision = wide.decide_request(verb, url)
        assert decision.allowed or decision.rule is not None
