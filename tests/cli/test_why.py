"""`nyx why`: a decision, its rule, and the exit code."""

import json

import pytest


def test_an_allowed_request_names_its_rule_and_line(nyx, case):
    """The exit code is 0, and the output has the line of the policy."""
    done = nyx("why", *case.options(), "--plugin", case.plugin, "request", "GET", "https://api.met.no/v1/x")
    assert done.code == 0
    assert "allowed" in done.out
    assert "GET https://api.met.no/v1/**" in done.out
    assert "policy.toml:2" in done.out


def test_a_denied_request_is_explained(nyx, case):
    """The exit code is 1, and the output has the grant, the request, and the change that would allow it."""
    done = nyx("why", *case.options(), "--plugin", case.plugin, "request", "GET", "https://api.met.no/v2/x")
    assert done.code == 1
    assert done.out.splitlines() == [
        "weather: http GET https://api.met.no/v2/x denied: no rule allows it",
        "  granted: GET https://api.met.no/v1/**         (policy.toml:2)",
        '  asked:   GET https://api.met.no/**            (plugin.toml:5, "reads forecasts")',
        "  fix:     widen policy.toml:2 to what plugin.toml:5 asks",
    ]


def test_a_manifest_bounds_what_a_policy_grants(nyx, case):
    """An action that the manifest does not request is denied with it, and allowed without it."""
    case.policy.write_text('[allow]\nconnect = ["other.example"]\n', encoding="utf-8")
    question = ("connect", "other.example:443")
    assert nyx("why", "--policy", case.policy, *question).code == 0
    denied = nyx("why", "--policy", case.policy, "--manifest", case.plugin / "plugin.toml", *question)
    assert denied.code == 1
    assert "the plugin's manifest does not ask for it" in denied.out


@pytest.mark.parametrize(
    ("question", "code", "rule"),
    [
        (("connect", "[::1]:8080"), 0, "[::1]:8080"),
        (("connect", "10.1.2.3:80"), 1, "10.0.0.0/8"),
        (("connect", "nowhere.example:443"), 1, None),
        (("path", "$DATA/a", "--mode", "rw"), 0, None),
        (("path", "$DATA/secret/a"), 1, None),
        (("path", "./data/a"), 1, None),
        (("path", "a/b", "--mode", "rw"), 0, None),
    ],
)
def test_json_carries_the_decision(nyx, case, question, code, rule):
    """The JSON agrees with the exit code, and has the rule as written in the policy."""
    done = nyx("why", *question, *case.options(), "--plugin", case.plugin, "--json")
    answer = json.loads(done.out)
    assert done.code == code
    assert answer["allowed"] == (code == 0)
    assert answer["plugin"] == "weather"
    if rule is not None:
        assert answer["rule"] == rule
    if answer["rule"] is not None:
        assert answer["at"].startswith("policy.toml:")
    assert (answer["hint"] is None) == (code == 0)


@pytest.mark.parametrize(
    "question",
    [
        ("connect", "no-port"),
        ("connect", "host:99x"),
        ("connect", "a:1", "b:2"),
        ("request", "https://only.url"),
        ("path",),
        ("listen", "host:1"),
        ("path", "/a", "--mode", "w"),
    ],
)
def test_a_malformed_question_is_a_usage_error(nyx, case, question):
    """The exit code is 2, and the error is one line."""
    done = nyx("why", "--policy", case.policy, *question)
    assert done.code == 2
    assert done.err.startswith("nyx: ")
    assert done.err.count("\n") == 1


def test_a_hostile_target_cannot_forge_lines(nyx, case):
    """Control and bidirectional characters in the target are escaped."""
    done = nyx("why", "--policy", case.policy, "path", "/tmp/\x1b[2J\u202ea\nb")
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "\\u001b" in done.out


@pytest.mark.parametrize(("address", "code"), [("93.184.215.14", 0), ("10.0.0.7", 1), ("not an address", 1)])
def test_a_resolved_address_is_checked_too(nyx, case, address, code):
    """A granted name may resolve to a public address, but not to a private one."""
    for question in (("request", "GET", "https://api.met.no/v1/x"), ("connect", "api.example.com:443")):
        case.policy.write_text(
            '[allow]\nrequest = ["GET https://api.met.no"]\nconnect = ["api.example.com"]\n', encoding="utf-8"
        )
        assert nyx("why", "--policy", case.policy, *question, "--address", address).code == code
