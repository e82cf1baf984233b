"""Laws of the fast paths: the decision cache and the pattern for plain URLs never change a decision."""

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nyx_stream.guard.url_parts import UrlError, read_any, read_plain
from nyx_stream.plugin_sandbox import SandboxDenied, SandboxGuard, SandboxPolicy
from nyx_stream.policy.hosts import MAX_NAME_LENGTH

LABELS = st.sampled_from(
    ["a", "b", "a-", "-a", "xn--a", "xn--mnchen-3ya", "A", "", "1", "a_b", "ä", "a" * 63, "a" * 64]
)
ZONES = st.sampled_from(["z.example", "y.z.example", "Z.example", "z.example.", "example", "1.2.3", "z..example"])
HOSTS = st.builds("{}.{}".format, LABELS, ZONES)
RULES = st.sampled_from(
    [
        "*.z.example",
        "*.y.z.example",
        "*.z.example",
        "a.z.example",
        "b.z.example:80",
        "1.2.3.1",
        "z.example",
        "y.z.example",
    ]
)
PORTS = st.sampled_from([80, 443])


def checked(guard: SandboxGuard, *target: object) -> bool:
    try:
        guard.check_connect(*target)  # type: ignore[arg-type]
    except SandboxDenied:
        return False
    return True


@given(
    st.lists(RULES, min_size=1, max_size=4),
    st.lists(RULES, max_size=2),
    st.lists(st.tuples(HOSTS, PORTS), min_size=1, max_size=12),
)
@example(["*.z.example"], ["b.z.example:80"], [("a.z.example", 80), ("b.z.example", 80), ("a.z.example", 443)])
@example(["a.z.example"], [], [("a.z.example", 80), ("b.z.example", 80)])
@example(["*.z.example"], ["*.y.z.example"], [("y.z.example", 80), ("a.y.z.example", 80), ("b.z.example", 80)])
def test_earlier_checks_never_change_a_decision(
    allow: list[str], deny: list[str], targets: list[tuple[str, int]]
) -> None:
    """A guard with any history decides on a host as a new guard does."""
    policy = SandboxPolicy.locked_down().allow_connect_host(*allow).deny_connect_host(*deny)
    guard = SandboxGuard(policy)
    for host, port in targets * 2:
        assert checked(guard, host, port) == SandboxGuard(policy).decide_connect(host, port).allowed


def test_a_name_in_a_cached_zone_is_bounded_in_length() -> None:
    """The maximum length of a name applies to names in a cached zone."""
    zone = ".".join(["a" * 60] * 3 + ["example"])
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host(f"*.{zone}"))
    for length in (1, 50, MAX_NAME_LENGTH - len(zone) - 1, 63):
        host = f"{'b' * length}.{zone}"
        assert checked(guard, host, 443) == (len(host) <= MAX_NAME_LENGTH)


def test_only_exact_types_use_the_cache() -> None:
    """A text that only claims to equal a granted host is denied, and so is an unhashable value."""

    class Sly(str):
        def __hash__(self) -> int:
            return hash("a.z.example")

        def __eq__(self, other: object) -> bool:
            return True

    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("a.z.example"))
    guard.check_connect("a.z.example", 443)
    assert not checked(guard, Sly("evil.example"), 443)
    assert not checked(guard, ["a.z.example"], 443)
    assert not checked(guard, "a.z.example", [443])


NAMES = st.sampled_from(["", ".", "..", "...", "a", ".a", "a\0", "\ud800", "\udcff", "é", "a\n", "secret", "a/b"])


@given(st.lists(NAMES, min_size=1, max_size=12), st.sampled_from(["r", "rw"]))
def test_a_name_in_a_cached_folder_is_decided_as_without_the_cache(names: list[str], mode: str) -> None:
    """A guard that has cached a folder decides on a name in it as a new guard does."""
    policy = SandboxPolicy.locked_down().allow_path_prefix("/data/x", "/data/y").deny_path_prefix("/data/y/secret")
    guard = SandboxGuard(policy, flavour="posix")
    for folder in ("/data/x", "/data/y"):
        guard.check_path(f"{folder}/first", mode)
        for name in names:
            try:
                guard.check_path(f"{folder}/{name}", mode)
                allowed = True
            except SandboxDenied:
                allowed = False
            assert allowed == SandboxGuard(policy, flavour="posix").decide_path(f"{folder}/{name}", mode).allowed


URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP"]),
    st.sampled_from(["a.com", "x-y.a_b.org", "a.b1", "127.0.0.1", "xn--a.com", "a.com.", "-a.com", "a-.com", "A.com"]),
    st.sampled_from(["", ":80", ":443", ":8443", ":65535", ":65536", ":0443", ":"]),
    st.text(alphabet="ab1/.~@:!$&()*+,;=-'%2e\\", max_size=24).map(lambda text: f"/{text}" if text else ""),
    st.sampled_from(["", "?", "?a=b", "?a=/../b", "?a='b'", "?a=%20", "#f", "?a b"]),
)


@given(URLS)
@example("http://a.com/..")
@example("http://a.com/.?a")
@example("http://a.com/a/...")
@example("http://a.com?a=b")
def test_a_plain_url_is_read_as_by_the_parsers(text: str) -> None:
    """If the pattern for plain URLs matches, it reads what `httpx` and the strict parser read."""
    plain = read_plain(text)
    if plain is None:
        return
    assert plain == read_any(text)
    assert httpx.URL(text).raw_path == plain.target


def test_most_urls_are_plain() -> None:
    """The pattern matches common URLs."""
    for text in ("https://api.met.no/v1/forecast?lat=59.9&lon=10.7", "http://a.example.com:8080/", "https://a.com"):
        assert read_plain(text) is not None


def test_an_invalid_url_is_refused_by_the_parsers() -> None:
    """A text that is neither plain nor a URL is refused with a reason."""
    for text in ("https://a.com:65536/", "https://a..com/", "a.com"):
        assert read_plain(text) is None
        with pytest.raises(UrlError):
            read_any(text)
