"""Rules, limits and policies as values: what parses, what is refused, and how a fault is reported."""

import pytest

from nyx_stream.errors import PolicyError
from nyx_stream.plugin_sandbox import SandboxPolicy
from nyx_stream.policy import Limits
from nyx_stream.policy.limits import parse_duration, parse_size, print_duration, print_size
from nyx_stream.policy.rules import ConnectRule, PathRule, RequestRule, RuleError
from nyx_stream.policy.url_path import PathPattern

LOCKED = SandboxPolicy.locked_down()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "*",
        "*.com",
        "*.",
        "*example.com",
        "a.*.example.com",
        "ex*mple.com",
        "*.1.2.3",
        "*.[::1]",
        "http://a.com",
        "a.com/x",
        "a.com/8",
        "a.com:",
        "a.com:0",
        "a.com:65536",
        "a.com:http",
        "a.com:-1",
        "a.com:٤٤",
        "user@a.com",
        "a b.com",
        " a.com",
        "a..com",
        ".a.com",
        "-a.com",
        "0x7f000001",
        "2130706433",
        "127.1",
        "0177.0.0.1",
        "1.2.3.4.5",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/",
        "10.0.0.0/8:80",
        "[::1",
        "[::1]x",
        "[::1]:0",
        "[1.2.3.4]",
        "::1%lo",
        "[2001:db8::1]/32",
        "[2001:db8::]/129",
        "[::ffff:10.0.0.0]/104",
        "xn--a.com",
        "a" * 64 + ".com",
    ],
)
def test_a_bad_connect_rule_is_refused(text: str) -> None:
    """A text outside the grammar is an error when the policy is built, with the offset of the fault."""
    with pytest.raises(RuleError) as caught:
        ConnectRule.parse(text)
    assert 0 <= caught.value.offset <= len(text)
    with pytest.raises(PolicyError):
        LOCKED.allow_connect_host(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("API.Example.com.", "api.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example:443", "*.xn--bcher-kva.example:443"),
        ("0:0::1", "::1"),
        ("[2001:DB8::]/32", "[2001:db8::]/32"),
        ("2001:db8::/32", "[2001:db8::]/32"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("1.2.3.4/32", "1.2.3.4"),
        ("localhost", "localhost"),
        ("a_b.example.com", "a_b.example.com"),
    ],
)
def test_a_connect_rule_is_stored_canonically(text: str, stored: str) -> None:
    """Two spellings of one rule are one rule."""
    rule = ConnectRule.parse(text)
    assert rule.text == stored
    assert ConnectRule.parse(stored) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.com",
        "https://",
        "https:///x",
        "https://*",
        "https://*.com",
        "ftp://a.com",
        "https://u@a.com",
        "https://u:p@a.com",
        "https://a.com:0",
        "https://a.com:",
        "https://a.com:x",
        "https://::1",
        "https://10.0.0.0/8",
        "https://a.com/x?y",
        "https://a.com/x#y",
        "https://a.com?y",
        "https://a.com/a%2fb",
        "https://a.com/a\\b",
        "https://a.com\\b",
        "https://a.com/%zz",
        "https://a.com/\x7f",
        "CONNECT https://a.com",
        "GET,trace https://a.com",
        "GET, POST https://a.com",
        "GET  https://a.com",
        " https://a.com",
        "G(T https://a.com",
        ", https://a.com",
    ],
)
def test_a_bad_request_rule_is_refused(text: str) -> None:
    """A text outside the grammar is an error when the policy is built, with the offset of the fault."""
    with pytest.raises(RuleError) as caught:
        RequestRule.parse(text)
    assert 0 <= caught.value.offset <= len(text)
    with pytest.raises(PolicyError):
        LOCKED.allow_request(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("HTTPS://API.met.no:443/v1/**", "https://api.met.no/v1/**"),
        ("head,GET https://a.com/", "GET,HEAD https://a.com/"),
        ("https://a.com/x/../%7Ey", "https://a.com/~y"),
        ("https://a.com/ä", "https://a.com/%C3%A4"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("wss://a.com/socket", "wss://a.com/socket"),
        ("https://a.com/***", "https://a.com/**"),
    ],
)
def test_a_request_rule_is_stored_canonically(text: str, stored: str) -> None:
    """Two spellings of one rule are one rule."""
    rule = RequestRule.parse(text)
    assert rule.text == stored
    assert RequestRule.parse(stored) == rule


@pytest.mark.parametrize("text", ["", "x", "a/b", "../x", "/a/../b", "$HOME/x", "$DATA/../x", "/a\0b", "~", "C:rel"])
def test_a_bad_prefix_is_refused(text: str) -> None:
    """A prefix must be absolute or below a known variable, without `..`."""
    with pytest.raises(RuleError):
        PathRule.parse(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("/a//b/", "/a/b"),
        ("/", "/"),
        ("./data/", "$PLUGIN/data"),
        ("$DATA", "$DATA"),
        ("$DATA/./x", "$DATA/x"),
        ("c:/Data", "C:\\Data"),
    ],
)
def test_a_prefix_is_stored_normalised(text: str, stored: str) -> None:
    """Every platform reads POSIX and Windows paths."""
    assert PathRule.parse(text).prefix == stored


def test_a_variable_without_a_place_grants_nothing() -> None:
    """Binding a policy drops rules whose variable has no directory."""
    policy = LOCKED.allow_path_prefix("$DATA/x", "/etc").bind({"$PLUGIN": "/opt/p"})
    assert [rule.prefix for rule in policy.paths] == ["/etc"]
    bound = LOCKED.allow_path_prefix("$DATA/x", "$DATA").bind({"$DATA": "/var/p"})
    assert [rule.prefix for rule in bound.paths] == ["/var/p/x", "/var/p"]


def test_all_faults_of_a_call_are_reported_together() -> None:
    """Three bad rules are three problems in one error, each with a caret."""
    with pytest.raises(PolicyError) as caught:
        LOCKED.allow_connect_host("ok.example", "*", "a.com:99999", "b c")
    assert len(caught.value.problems) == 3
    assert str(caught.value.problems[1]).splitlines()[1:] == ["    a.com:99999", "          ^"]


def test_a_policy_is_frozen() -> None:
    """Every call returns a new policy and leaves the old one as it was."""
    wider = LOCKED.allow_connect_host("a.example", "b.example").with_limits(memory="1GiB")
    assert SandboxPolicy.locked_down() == LOCKED
    assert len(wider.connect) == 2
    with pytest.raises(AttributeError):
        wider.connect = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "size"), [("128MiB", 2**27), ("10 MB", 10**7), ("1", 1), (5, 5), ("64KiB", 65536), ("2GiB", 2**31)]
)
def test_sizes(text: object, size: int) -> None:
    """Sizes are bytes; the printed form reads back equal."""
    assert parse_size(text) == size
    assert parse_size(print_size(size)) == size


@pytest.mark.parametrize("bad", ["", "x", "-1", "0", 0, -5, 1.5, True, None, "1TiB", "1 2", "1e3", "9" * 20])
def test_bad_sizes(bad: object) -> None:
    """No value is guessed, and none means unlimited."""
    with pytest.raises(ValueError, match="size"):
        parse_size(bad)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("250ms", 0.25), ("2min", 120.0), ("1.5h", 5400.0), (3, 3.0), (0.5, 0.5)]
)
def test_durations(text: object, seconds: float) -> None:
    """Durations are seconds; the printed form reads back equal."""
    assert parse_duration(text) == seconds
    assert parse_duration(print_duration(seconds)) == seconds


@pytest.mark.parametrize("bad", ["", "5", "s", "-1s", 0, -1, True, None, float("inf"), float("nan"), "0s"])
def test_bad_durations(bad: object) -> None:
    """No value is guessed, and none means unlimited."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(bad)


def test_limits_meet_in_the_smaller_value() -> None:
    """`meet` returns the smaller value of each limit."""
    met = Limits.of(memory="64MiB", concurrency=9).meet(Limits.of(memory="1GiB", concurrency=3))
    assert (met.memory, met.concurrency) == (64 * 2**20, 3)


@pytest.mark.parametrize("values", [{"memory": "x"}, {"nonsense": 1}, {"concurrency": 0}, {"call_timeout": "5"}])
def test_a_bad_limit_is_a_policy_error(values: dict[str, object]) -> None:
    """The error names the limit."""
    with pytest.raises(PolicyError, match=next(iter(values))):
        LOCKED.with_limits(**values)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a*b*c", "/aXbYc", True),
        ("/a*b*c", "/aXb/c", False),
        ("/**/x", "/a/b/x", True),
        ("/**/x", "/x", False),
        ("/**.json", "/a/b.json", True),
        ("/*", "/", True),
        ("/a**", "/a", True),
        ("/**a**b", "/" + "a" * 3000 + "b", True),
        ("/" + "**a" * 30 + "**b", "/" + "a" * 3000, False),
        ("/" + "*a" * 30 + "*b", "/" + "a" * 3000, False),
    ],
)
def test_patterns_match_in_linear_time(pattern: str, path: str, matches: bool) -> None:
    """Matching does not backtrack, so a pattern in a plugin's manifest can't make a check slow."""
    assert PathPattern(pattern).matches(path) == matches
