"""The changes between two policies or manifests, and that a change that grants more is never missed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.difference import Change, difference, wants_more
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.sandbox_policy import SandboxPolicy as Policy

NONE = SandboxPolicy.locked_down()


def summary(changes: tuple[Change, ...]) -> list[tuple[str, str, str | None, str | None, bool]]:
    return [(change.section, change.what, change.old, change.new, change.more) for change in changes]


CASES = [
    (NONE, NONE.allow_connect_host("a.example"), [("allow", "added", None, "a.example", True)]),
    (NONE.allow_connect_host("a.example"), NONE, [("allow", "removed", "a.example", None, False)]),
    (
        NONE.allow_connect_host("a.example"),
        NONE.allow_connect_host("*.example.com", "a.example"),
        [("allow", "added", None, "*.example.com", True)],
    ),
    (
        NONE.allow_connect_host("a.example.com"),
        NONE.allow_connect_host("*.example.com"),
        [("allow", "widened", "a.example.com", "*.example.com", True)],
    ),
    (
        NONE.allow_connect_host("*.example.com"),
        NONE.allow_connect_host("*.example.com", "a.example.com"),
        [("allow", "added", None, "a.example.com", False)],
    ),
    (
        NONE.allow_request("https://a.example"),
        NONE.allow_request("GET https://a.example"),
        [("allow", "narrowed", "https://a.example", "GET https://a.example", False)],
    ),
    (
        NONE.allow_request("GET https://a.example/v1/**"),
        NONE.allow_request("POST https://a.example/v1/**"),
        [
            ("allow", "added", None, "POST https://a.example/v1/**", True),
            ("allow", "removed", "GET https://a.example/v1/**", None, False),
        ],
    ),
    (
        NONE.allow_connect_host("a.example"),
        NONE.allow_request("GET https://a.example"),
        [("allow", "narrowed", "a.example", "GET https://a.example", False)],
    ),
    (
        NONE.allow_path_prefix("/d", mode="r"),
        NONE.allow_path_prefix("/d"),
        [("allow", "widened", "/d (r)", "/d (rw)", True)],
    ),
    (
        NONE.allow_path_prefix("$DATA"),
        NONE.allow_path_prefix("$DATA/cache"),
        [("allow", "narrowed", "$DATA", "$DATA/cache", False)],
    ),
    (
        NONE.allow_path_prefix("/d").deny_path_prefix("/d/x"),
        NONE.allow_path_prefix("/d"),
        [("deny", "removed", "/d/x", None, True)],
    ),
    (
        NONE.allow_path_prefix("/d").deny_path_prefix("/d/x"),
        NONE.allow_path_prefix("/d").deny_path_prefix("/d/x/y"),
        [("deny", "narrowed", "/d/x", "/d/x/y", True)],
    ),
    (
        NONE.allow_path_prefix("/d"),
        NONE.allow_path_prefix("/d").deny_path_prefix("/d/x"),
        [("deny", "added", None, "/d/x", False)],
    ),
    (NONE.deny_path_prefix("/d/x"), NONE, [("deny", "removed", "/d/x", None, False)]),
    (
        NONE,
        NONE.report_only(NONE.allow_connect_host("a.example").deny_connect_host("b.example")),
        [("report", "added", None, "a.example", True)],
    ),
    (
        NONE.allow_connect_host("b.example"),
        NONE.allow_connect_host("b.example").allow_on_request(NONE.allow_connect_host("a.example", "b.example")),
        [("on_request", "added", None, "a.example", True), ("on_request", "added", None, "b.example", False)],
    ),
    (
        NONE.allow_connect_host("a.example").deny_request("https://a.example"),
        NONE.allow_connect_host("a.example").report_only(NONE.deny_request("https://a.example")),
        [("deny", "removed", "https://a.example", None, True)],
    ),
    (NONE, NONE.allow_env("TZ"), [("env", "added", None, "TZ", True)]),
    (NONE.allow_env("TZ"), NONE, [("env", "removed", "TZ", None, False)]),
    (NONE, NONE.allow_degraded(), [("degrade", "widened", "refuse", "allow", True)]),
    (NONE, NONE.with_limits(memory="256MiB"), [("limits", "widened", "128MiB", "256MiB", True)]),
    (NONE, NONE.with_limits(call_timeout="5s"), [("limits", "narrowed", "30s", "5s", False)]),
    (NONE, NONE.with_lease("http", requests=5), [("leases", "narrowed", None, "5", False)]),
    (NONE.with_lease("http", ttl="1h"), NONE, [("leases", "widened", "3600s", None, True)]),
    (NONE.with_lease("files", opens=5), NONE.with_lease("files", opens=6), [("leases", "widened", "5", "6", True)]),
]


@pytest.mark.parametrize(("old", "new", "expected"), CASES, ids=range(len(CASES)))
def test_each_change_is_classified(old, new, expected):
    """Each is added, removed, widened or narrowed, and may grant more."""
    assert summary(difference(old, new)) == expected
    assert wants_more(difference(old, new)) == any(more for *_, more in expected)


def test_a_credential_for_more_requests_grants_more():
    """The plugin acts with the credential, although it never sees it."""

    def bound(rule: str, value: str = "env:TOKEN") -> Policy:
        return NONE.bind_credential(rule, header="Authorization", value=value)

    narrow, wide, other = (
        bound("GET https://a.example"),
        bound("https://a.example"),
        bound("https://a.example", "env:B"),
    )
    for old, new, expected in (
        (NONE, wide, [("added", True)]),
        (wide, NONE, [("removed", False)]),
        (narrow, wide, [("widened", True)]),
        (wide, narrow, [("narrowed", False)]),
        (wide, other, [("added", True), ("removed", False)]),
    ):
        assert [(change.what, change.more) for change in difference(old, new)] == expected


def test_a_manifest_that_drops_a_limit_asks_for_more():
    """Only the policy bounds a limit that the manifest does not name."""

    def asking(**limits: object) -> Manifest:
        return Manifest("p", "1", "p:P", limits=Limits.of(**limits), asked_limits=frozenset(limits))

    assert summary(difference(asking(memory="1MiB"), asking())) == [("limits", "widened", "1MiB", None, True)]
    assert summary(difference(asking(), asking(memory="1MiB"))) == [("limits", "narrowed", None, "1MiB", False)]
    assert summary(difference(asking(memory="1MiB"), asking(memory="2MiB"))) == [
        ("limits", "widened", "1MiB", "2MiB", True)
    ]


def test_an_optional_permission_counts_as_asked_for(tmp_path):
    """A policy may grant it without asking."""

    def asking(permissions: str) -> Manifest:
        file = tmp_path / "plugin.toml"
        file.write_text(f'id = "p"\nversion = "1"\nentry = "p:P"\n[permissions]\n{permissions}')
        return Manifest.from_toml(file)

    optional = asking('connect = [{ rule = "a.example", optional = true }]')
    assert summary(difference(asking(""), optional)) == [("allow", "added", None, "a.example", True)]


def test_another_order_or_spelling_is_not_a_change():
    """Equal rules produce no changes."""
    one = NONE.allow_connect_host("a.example", "b.example").allow_request("https://a.example")
    other = NONE.allow_connect_host("b.example", "a.example").allow_request("https://a.example:443")
    assert difference(one, other) == ()


HOSTS = st.sampled_from(["a.z.example", "*.z.example", "*.y.z.example", "a.z.example:443", "10.0.0.0/8", "10.0.0.7"])
REQUESTS = st.sampled_from(
    [
        "https://a.z.example",
        "GET https://a.z.example/v1/**",
        "GET,POST https://*.z.example/v1/*",
        "http://a.z.example:443",
    ]
)
PREFIXES = st.sampled_from(["/d", "/d/x", "/d/x/y", "/e"])


@st.composite
def policies(draw: st.DrawFn) -> SandboxPolicy:
    policy = NONE.allow_connect_host(*draw(st.lists(HOSTS, max_size=3)))
    policy = policy.deny_connect_host(*draw(st.lists(HOSTS, max_size=2)))
    policy = policy.allow_request(*draw(st.lists(REQUESTS, max_size=2)))
    policy = policy.deny_request(*draw(st.lists(REQUESTS, max_size=2)))
    policy = policy.allow_path_prefix(*draw(st.lists(PREFIXES, max_size=2)), mode=draw(st.sampled_from(["r", "rw"])))
    return policy.deny_path_prefix(*draw(st.lists(PREFIXES, max_size=2)))


@given(policies(), policies())
def test_a_change_that_allows_a_new_target_grants_more(old, new):
    """If the new policy allows a target that the old one denied, some change is marked as granting more."""
    one, other = SandboxGuard(old, flavour="posix"), SandboxGuard(new, flavour="posix")
    newly_allowed = [
        *(
            other.decide_connect(host, port).allowed and not one.decide_connect(host, port).allowed
            for host in ("a.z.example", "b.y.z.example", "10.0.0.7")
            for port in (80, 443)
        ),
        *(
            other.decide_request(method, url).allowed and not one.decide_request(method, url).allowed
            for method in ("GET", "POST", "DELETE")
            for url in ("https://a.z.example/v1/x", "https://b.z.example/v1/x", "http://a.z.example:443/")
        ),
        *(
            other.decide_path(path, mode).allowed and not one.decide_path(path, mode).allowed
            for path in ("/d/f", "/d/x/f", "/d/x/y/f", "/e")
            for mode in ("r", "rw")
        ),
    ]
    if any(newly_allowed):
        assert wants_more(difference(old, new))
