"""The guard through its public interface: rules 1 to 8 of decision, and the text of denials."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from nyx_stream.plugin_sandbox import (
    FilesystemDenied,
    NetworkDenied,
    SandboxDenied,
    SandboxGuard,
    SandboxPolicy,
)
from nyx_stream.policy.manifest import Manifest

if TYPE_CHECKING:
    from nyx_stream.audit import AuditEvent

LOCKED = SandboxPolicy.locked_down()


def test_nothing_is_granted_by_default() -> None:
    """The empty policy denies every kind of target, and the decision names no rule."""
    guard = SandboxGuard(LOCKED)
    for decision in (
        guard.decide_connect("example.com", 443),
        guard.decide_request("GET", "https://example.com/"),
        guard.decide_path("/etc/passwd"),
        guard.decide_addresses("example.com", 443, ["93.184.215.14"]),
    ):
        assert not decision.allowed
        assert decision.rule is None
        assert decision.reason.startswith("no rule")


def test_an_allowed_host_is_allowed_and_its_siblings_are_not() -> None:
    """A host rule covers only that host, in upper or lower case, with or without the trailing dot."""
    guard = SandboxGuard(LOCKED.allow_connect_host("api.example.com"))
    for host in ("api.example.com", "API.EXAMPLE.COM", "api.example.com."):
        assert guard.decide_connect(host, 443).allowed
    for host in (
        "example.com",
        "www.example.com",
        "xapi.example.com",
        "api.example.com.evil.net",
        "evilapi.example.com",
    ):
        assert not guard.decide_connect(host, 443).allowed


@pytest.mark.parametrize(
    ("rule", "host", "port", "allowed"),
    [
        ("*.example.com", "a.example.com", 1, True),
        ("*.example.com", "a.b.example.com", 1, True),
        ("*.example.com", "example.com", 1, False),
        ("*.example.com", "evilexample.com", 1, False),
        ("*.example.com:443", "a.example.com", 443, True),
        ("*.example.com:443", "a.example.com", 80, False),
        ("h.example:80", "h.example", 80, True),
        ("h.example:80", "h.example", 81, False),
        ("1.2.3.4", "1.2.3.4", 9, True),
        ("1.2.3.4", "::ffff:1.2.3.4", 9, True),
        ("10.0.0.0/8", "10.255.0.1", 9, True),
        ("10.0.0.0/8", "11.0.0.1", 9, False),
        ("::1", "::1", 9, True),
        ("::1", "0:0:0:0:0:0:0:1", 9, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]:8080", "[::1]", 8080, True),
        ("[::1]:8080", "::1", 80, False),
        ("[2001:db8::]/32", "2001:db8:1::5", 9, True),
        ("[2001:db8::]/32", "2001:db9::5", 9, False),
        ("2001:db8::1:443", "2001:db8::1:443", 9, True),
        ("2001:db8::1:443", "2001:db8::1", 443, False),
        ("127.0.0.1", "0x7f000001", 9, False),
        ("127.0.0.1", "2130706433", 9, False),
        ("127.0.0.1", "127.1", 9, False),
        ("127.0.0.1", "0177.0.0.1", 9, False),
        ("127.0.0.1", "127.0.0.1.", 9, False),
    ],
)
def test_rule_forms_for_connecting(rule: str, host: str, port: int, allowed: bool) -> None:
    """Each form of a connect rule covers exactly what the grammar says."""
    decision = SandboxGuard(LOCKED.allow_connect_host(rule)).decide_connect(host, port)
    assert decision.allowed == allowed
    assert decision.rule == (rule if allowed else None)


@pytest.mark.parametrize("port", [0, -1, 65536, 65616, True, 80.0, "80", None, [], 1e400])
def test_a_port_is_a_number_from_1_to_65535(port: object) -> None:
    """Any other value is denied."""
    guard = SandboxGuard(LOCKED.allow_connect_host("h.example"))
    guard.check_connect("h.example", 443)
    assert not guard.decide_connect("h.example", port).allowed  # type: ignore[arg-type]
    with pytest.raises(NetworkDenied):
        guard.check_connect("h.example", port)  # type: ignore[arg-type]


class OtherPort(int):
    """A number that claims to equal an allowed port."""

    def __hash__(self) -> int:
        return hash(443)

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("port", [443.0, OtherPort(22)])
def test_a_value_that_only_equals_an_allowed_port_is_denied(port: int) -> None:
    """The cache has no entry for a number that equals, or claims to equal, a port that was allowed before."""
    guard = SandboxGuard(LOCKED.allow_connect_host("h.example", "*.h.example"))
    for host in ("h.example", "a.h.example"):
        guard.check_connect(host, 443)
    for host in ("h.example", "a.h.example", "new.h.example"):
        with pytest.raises(NetworkDenied):
            guard.check_connect(host, port)


class Liar(str):
    """Text that claims to equal an allowed host."""

    def __hash__(self) -> int:
        return hash("h.example")

    def __eq__(self, other: object) -> bool:
        return True


def test_a_subclass_of_str_is_not_a_host() -> None:
    """Only exact text is checked: an object of another type could return something else the second time."""
    guard = SandboxGuard(LOCKED.allow_connect_host("h.example"))
    guard.check_connect("h.example", 443)
    with pytest.raises(NetworkDenied):
        guard.check_connect(Liar("evil.example"), 443)
    with pytest.raises(NetworkDenied):
        guard.check_request("GET", Liar("https://h.example/"))


def test_a_deny_rule_beats_every_allow_rule() -> None:
    """A deny rule wins for hosts, addresses, requests and paths, in any order, and the decision names it."""
    guard = SandboxGuard(
        LOCKED.deny_connect_host("evil.example.com", "10.1.0.0/16")
        .allow_connect_host("*.example.com", "evil.example.com", "10.0.0.0/8")
        .deny_request("https://api.example.com/admin/**")
        .deny_path_prefix("/data/secret")
        .allow_path_prefix("/data")
    )
    assert guard.decide_connect("evil.example.com", 1) == guard.decide_request("GET", "http://evil.example.com:1/")
    assert guard.decide_connect("evil.example.com", 1).rule == "evil.example.com"
    assert not guard.decide_connect("10.1.2.3", 1).allowed
    assert guard.decide_connect("10.2.2.3", 1).allowed
    assert not guard.decide_request("GET", "https://api.example.com/admin/x").allowed
    assert guard.decide_request("GET", "https://api.example.com/public").allowed
    assert guard.decide_path("/data/secret/x").rule == "/data/secret"
    assert not guard.decide_addresses("www.example.com", 80, ["10.1.0.1"]).allowed


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/%61dmin/x",
        "https://h.example/x/../admin/x",
        "https://h.example/x/%2e%2e/admin/x",
        "https://h.example//admin/x",
        "https://h.example/admin%2fx",
        "https://h.example/x%2f..%2fadmin/x",
        "https://h.example/x%5c..%5cadmin/x",
    ],
)
def test_no_spelling_bypasses_a_denied_path(url: str) -> None:
    """A server may read a path in several ways; a deny rule covers all of them."""
    guard = SandboxGuard(LOCKED.allow_connect_host("h.example").deny_request("https://h.example/admin/**"))
    assert not guard.decide_request("GET", url).allowed
    assert guard.decide_request("GET", "https://h.example/other").allowed


@pytest.mark.parametrize(
    ("rule", "method", "url", "allowed"),
    [
        ("GET https://h.example/v1/**", "GET", "https://h.example/v1/a/b", True),
        ("GET https://h.example/v1/**", "get", "https://h.example/v1/a/b", True),
        ("GET https://h.example/v1/**", "POST", "https://h.example/v1/a", False),
        ("GET https://h.example/v1/**", "GET", "https://h.example/v1/../v2", False),
        ("GET https://h.example/v1/**", "GET", "https://h.example/v1/%2e%2e/v2", False),
        ("GET https://h.example/v1/**", "GET", "https://h.example/v1/a%2fb", False),
        ("GET https://h.example/v1/**", "GET", "https://h.example/v1", False),
        ("GET https://h.example/v1/*", "GET", "https://h.example/v1/a", True),
        ("GET https://h.example/v1/*", "GET", "https://h.example/v1/a/b", False),
        ("GET https://h.example/~a", "GET", "https://h.example/%7ea", True),
        ("https://h.example", "OPTIONS", "https://h.example/x?y", True),
        ("https://h.example", "PURGE", "https://h.example/x", False),
        ("PURGE https://h.example", "PURGE", "https://h.example/x", True),
        ("https://h.example", "GET", "http://h.example/", False),
        ("https://h.example", "GET", "https://h.example:8443/", False),
        ("https://h.example:8443", "GET", "https://h.example:8443/", True),
        ("http://[::1]:8080", "GET", "http://[::1]:8080/", True),
        ("http://127.0.0.1", "GET", "http://[::ffff:127.0.0.1]/", True),
    ],
)
def test_rule_forms_for_requests(rule: str, method: str, url: str, allowed: bool) -> None:
    """Each form of a request rule covers what the grammar says, for text and for `httpx.URL` alike."""
    guard = SandboxGuard(LOCKED.allow_request(rule))
    assert guard.decide_request(method, url).allowed == allowed
    assert guard.decide_request(method, httpx.URL(url)).allowed == allowed


@pytest.mark.parametrize(
    "method", ["", "GE T", "GET\r\nHost: evil", "opt\u0131ons", "GET/", "G" * 65, "CONNECT", "trace"]
)
def test_an_invalid_method_is_denied(method: str) -> None:
    """Even a rule for every method allows only tokens, and never CONNECT or TRACE."""
    assert not SandboxGuard(LOCKED.allow_connect_host("h.example")).decide_request(method, "https://h.example/").allowed


def test_a_connect_rule_allows_requests_and_a_request_rule_allows_no_connection() -> None:
    """A bare connection can carry any protocol, so only a connect rule allows one."""
    by_host = SandboxGuard(LOCKED.allow_connect_host("h.example"))
    assert by_host.decide_request("PURGE", "http://h.example:8080/x").allowed
    assert not by_host.decide_request("TRACE", "http://h.example/").allowed
    assert not by_host.decide_request("GET", "wss://h.example/").allowed
    by_request = SandboxGuard(LOCKED.allow_request("https://h.example"))
    assert not by_request.decide_connect("h.example", 443).allowed
    assert by_request.judge_origin("h.example", 443).allowed


def test_a_name_does_not_open_private_networks() -> None:
    """Every address must be public, unless the policy lists it or the rule names a loopback host."""
    guard = SandboxGuard(LOCKED.allow_connect_host("a.example.com", "localhost", "10.0.0.0/8"))
    assert guard.decide_addresses("a.example.com", 443, ["93.184.215.14"]).allowed
    assert guard.decide_addresses("a.example.com", 443, ["93.184.215.14", "10.0.0.7"]).allowed
    assert not guard.decide_addresses("a.example.com", 443, ["93.184.215.14", "192.168.0.7"]).allowed
    assert not guard.decide_addresses("a.example.com", 443, ["127.0.0.1"]).allowed
    assert guard.decide_addresses("localhost", 443, ["127.0.0.1", "::1"]).allowed
    assert not guard.decide_addresses("localhost", 443, ["192.168.0.1"]).allowed
    assert not guard.decide_addresses("a.example.com", 443, []).allowed
    assert not guard.decide_addresses("b.example.com", 443, ["93.184.215.14"]).allowed


@pytest.mark.parametrize(
    ("path", "mode", "allowed"),
    [
        ("/data/app", "r", True),
        ("/data/app/x", "rw", True),
        ("//data//app/./x", "rw", True),
        ("/data/app/a/../x", "rw", True),
        ("/data/app2/x", "r", False),
        ("/data/app/../app2/x", "r", False),
        ("/data/APP/x", "r", False),
        ("/data", "r", False),
        ("/readable/x", "r", True),
        ("/readable/x", "rw", False),
        ("/data/app/a\0b", "r", False),
        ("", "r", False),
        ("relative", "r", False),
        ("/data/app/x", "w", False),
    ],
)
def test_path_prefixes(path: str, mode: str, allowed: bool) -> None:
    """A prefix covers itself and everything below it, by whole components, in its mode."""
    guard = SandboxGuard(
        LOCKED.allow_path_prefix("/data/app").allow_path_prefix("/readable", mode="r"), flavour="posix"
    )
    assert guard.decide_path(path, mode).allowed == allowed
    for _ in range(2):
        if allowed:
            guard.check_path(path, mode)
        else:
            with pytest.raises(FilesystemDenied):
                guard.check_path(path, mode)


def test_windows_paths_compare_without_case_and_posix_paths_with() -> None:
    """The flavour decides how paths are compared, on every platform."""
    policy = LOCKED.allow_path_prefix("C:\\Data", "/data")
    windows = SandboxGuard(policy, flavour="windows")
    assert windows.decide_path("c:/DATA/x").allowed
    for text in (
        "C:\\Data\\nul.txt",
        "C:\\Data\\f::$DATA",
        "C:rel",
        "\\\\?\\C:\\Data\\x",
        "C:\\Data\\x.",
        "C:\\DATA~1",
    ):
        assert not windows.decide_path(text).allowed
    assert not SandboxGuard(policy, flavour="posix").decide_path("/DATA/x").allowed


def test_a_relative_path_is_relative_to_the_data_directory() -> None:
    """It is not relative to the working directory."""
    guard = SandboxGuard(
        LOCKED.allow_path_prefix("$DATA", mode="rw").allow_path_prefix("./static", mode="r"),
        places={"$DATA": "/var/nyx/weather", "$PLUGIN": "/opt/weather"},
        flavour="posix",
    )
    assert guard.judge_path("cache/x.json", "rw").path == "/var/nyx/weather/cache/x.json"
    assert guard.decide_path("cache/x.json", "rw").allowed
    assert guard.decide_path("/opt/weather/static/a.css").allowed
    assert not guard.decide_path("/opt/weather/weather.py").allowed
    assert not guard.decide_path("../other/x").allowed


@pytest.mark.parametrize("rule", ["/b|c", "/b%7Cc", "/b^c", "/b[c]", "/x!y", "/x%21y", "/k:v/**", "/k%3av/**"])
@pytest.mark.parametrize(
    "path",
    ["/b|c", "/b%7cc", "/b^c", "/b%5Ec", "/b[c]", "/b%5bc%5d", "/x!y", "/x%21y", "/k:v/a", "/k%3Av/a", "/k%3av//a"],
)
def test_no_escape_bypasses_a_denied_path(rule: str, path: str) -> None:
    """A deny rule forbids every escaped spelling of its path, for text and for `httpx.URL` alike."""
    guard = SandboxGuard(LOCKED.allow_connect_host("h.example").deny_request(f"https://h.example{rule}"))

    def plain(text: str) -> str:
        return unquote(text).replace("//", "/")

    same = plain(path) == plain(rule) or (rule.endswith("**") and plain(path).startswith(plain(rule)[:-2]))
    assert guard.decide_request("GET", f"https://h.example{path}").allowed != same
    assert guard.decide_request("GET", httpx.URL(f"https://h.example{path}")).allowed != same


class Shifty:
    """A path object that returns another path the second time."""

    def __init__(self) -> None:
        self.answers = ["/data/x", "/etc/passwd"]

    def __fspath__(self) -> str:
        return self.answers.pop(0)


def test_a_path_object_is_converted_once() -> None:
    """The decision is on the first text that the object returns."""
    guard = SandboxGuard(LOCKED.allow_path_prefix("/data"), flavour="posix")
    shifty = Shifty()
    guard.check_path(shifty)  # type: ignore[arg-type]
    assert shifty.answers == ["/etc/passwd"]


class Broken:
    """A path object that raises."""

    def __fspath__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("path", [None, 5, b"/data/x", Broken()])
def test_a_decision_on_something_else_than_a_path_is_a_denial(path: Any) -> None:
    """`decide_path` denies objects that aren't text, and never raises, even if the path object does."""
    decision = SandboxGuard(LOCKED.allow_path_prefix("/data")).decide_path(path)
    assert (decision.allowed, decision.rule) == (False, None)
    assert decision.reason


MANIFEST = """
id = "weather"
version = "1.0"
entry = "weather:Weather"
[permissions]
connect = ["files.example.com"]
request = ["GET https://api.met.no/**"]
read = ["/srv"]
[permissions.why]
request = "reads forecasts"
"""


def guard_with_manifest(tmp_path: Path, policy: str) -> SandboxGuard:
    (tmp_path / "plugin.toml").write_text(MANIFEST, encoding="utf-8")
    (tmp_path / "policy.toml").write_text(policy, encoding="utf-8")
    return SandboxGuard(
        SandboxPolicy.from_toml(tmp_path / "policy.toml"),
        manifest=Manifest.from_toml(tmp_path / "plugin.toml"),
    )


def test_policy_and_manifest_must_both_allow_a_target(tmp_path: Path) -> None:
    """A target is denied if only the policy or only the manifest has a rule for it."""
    guard = guard_with_manifest(
        tmp_path, '[allow]\nconnect = ["other.example.com"]\nrequest = ["https://api.met.no/v1/**"]\nread = ["/"]\n'
    )
    assert not guard.decide_connect("other.example.com", 443).allowed
    assert not guard.decide_connect("files.example.com", 443).allowed
    assert guard.decide_request("GET", "https://api.met.no/v1/x").allowed
    assert not guard.decide_request("POST", "https://api.met.no/v1/x").allowed
    assert not guard.decide_request("GET", "https://api.met.no/v2/x").allowed
    assert guard.decide_path("/srv/x").allowed
    assert not guard.decide_path("/etc/x").allowed


def test_a_denial_explains_itself(tmp_path: Path) -> None:
    """It names plugin, target and reason, the rules near it, and the smallest change that would help."""
    guard = guard_with_manifest(tmp_path, '[allow]\nrequest = ["GET https://api.met.no/v1/**"]\n')
    with pytest.raises(NetworkDenied) as caught:
        guard.check_request("GET", "https://api.met.no/v2/x")
    assert str(caught.value).splitlines() == [
        "weather: http GET https://api.met.no/v2/x denied: no rule allows it",
        "  granted: GET https://api.met.no/v1/**         (policy.toml:2)",
        '  asked:   GET https://api.met.no/**            (plugin.toml:7, "reads forecasts")',
        "  fix:     widen policy.toml:2 to what plugin.toml:7 asks",
    ]
    denied = caught.value
    assert (denied.plugin, denied.capability, denied.action) == ("weather", "http", "GET")
    assert (denied.target, denied.rule, denied.reason) == ("https://api.met.no/v2/x", None, "no rule allows it")


def test_a_denial_never_suggests_a_rule_from_the_target(tmp_path: Path) -> None:
    """No grant can allow a target that the manifest does not ask for, and no rule is built from it."""
    guard = guard_with_manifest(tmp_path, '[allow]\nrequest = ["GET https://api.met.no/v1/**"]\n')
    with pytest.raises(NetworkDenied) as caught:
        guard.check_request("GET", "https://evil.example/x")
    fix = str(caught.value).splitlines()[-1]
    assert "no grant can allow it" in fix
    assert "evil" not in fix


def test_the_fix_for_an_ungranted_target_is_the_manifests_rule(tmp_path: Path) -> None:
    """If the policy has no rule near the target, the line to add is the rule of the manifest."""
    guard = guard_with_manifest(tmp_path, "")
    with pytest.raises(NetworkDenied, match=r'add to the policy, below \[allow\]: connect = \["files.example.com"\]'):
        guard.check_connect("files.example.com", 443)
    with pytest.raises(FilesystemDenied, match=r'read = \["/srv"\]'):
        guard.check_path("/srv/x")


def test_the_fix_is_a_line_that_the_policy_accepts(tmp_path: Path) -> None:
    """A permission asked for by a connect rule is granted by one, and a rule at another port counts as near."""
    guard = guard_with_manifest(tmp_path, '[allow]\nconnect = ["127.0.0.1:80"]\n')
    for host, near in (("files.example.com", "nothing near it"), ("127.0.0.1", "127.0.0.1:80")):
        with pytest.raises(NetworkDenied) as caught:
            guard.check_request("GET", f"https://{host}/x")
        granted, *_, fix = str(caught.value).splitlines()[1:]
        assert near in granted
        if host == "files.example.com":
            assert fix == '  fix:     add to the policy, below [allow]: connect = ["files.example.com"]'


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "GET /", ""])
def test_no_line_is_suggested_that_would_not_help(tmp_path: Path, method: str) -> None:
    """A method that no rule can allow is denied without a fix."""
    guard = guard_with_manifest(tmp_path, '[allow]\nconnect = ["files.example.com"]\n')
    with pytest.raises(NetworkDenied) as caught:
        guard.check_request(method, "https://files.example.com/")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("bad", ["\x1b[2J", "\u202e", "\u200b", "\n", "\x00", "\ud800"])
def test_a_target_cannot_forge_output(bad: str) -> None:
    """Control, bidirectional and zero-width characters of a target, or of a method, are escaped."""
    guard = SandboxGuard(LOCKED)
    for check, given in (
        (guard.check_path, (f"/x{bad}y",)),
        (guard.check_request, (f"GET{bad}", "https://h.example/")),
    ):
        with pytest.raises(SandboxDenied) as caught:
            check(*given)
        head = str(caught.value).splitlines()[0]
        assert bad not in head
        assert "denied" in head


def test_every_check_is_audited_once() -> None:
    """Each check produces one event with the rule and the reason, also when the target was checked before."""
    events: list[AuditEvent] = []
    guard = SandboxGuard(
        LOCKED.allow_connect_host("h.example").allow_path_prefix("/data"), plugin="weather", audit=events.append
    )
    for _ in range(2):
        guard.check_connect("h.example", 443)
        guard.check_request("GET", "https://h.example/")
        guard.check_path("/data/x")
        with pytest.raises(NetworkDenied):
            guard.check_connect("evil.example", 443)
    assert len(events) == 8
    assert [event.allowed for event in events] == [True, True, True, False] * 2
    assert {event.plugin for event in events} == {"weather"}
    guard.decide_connect("h.example", 443)
    assert len(events) == 8


def test_an_update_is_atomic() -> None:
    """While policies alternate, every concurrent check sees one of them, never a mix."""
    left = LOCKED.allow_connect_host("left.example").allow_path_prefix("/left")
    right = LOCKED.allow_connect_host("right.example").allow_path_prefix("/right")
    guard = SandboxGuard(left, flavour="posix")
    stop = threading.Event()
    mixed: list[str] = []

    def check() -> None:
        while not stop.is_set():
            host = guard.decide_addresses("left.example", 443, ["93.184.215.14"])
            if not host.allowed and host.reason != "no rule allows it":
                mixed.append(host.reason)

    threads = [threading.Thread(target=check) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(500):
        guard.update(right if number % 2 else left)
    stop.set()
    for thread in threads:
        thread.join()
    assert mixed == []
    guard.update(left)
    guard.check_connect("left.example", 443)
    guard.update(right)
    with pytest.raises(NetworkDenied):
        guard.check_connect("left.example", 443)


def test_the_limits_are_those_of_the_grant(tmp_path: Path) -> None:
    """The smaller limit of policy and manifest applies, and an update of the policy changes it."""
    (tmp_path / "plugin.toml").write_text(
        MANIFEST + '[limits]\nresponse_bytes = "1MiB"\nconcurrency = 9\n', encoding="utf-8"
    )
    manifest = Manifest.from_toml(tmp_path / "plugin.toml")
    guard = SandboxGuard(LOCKED.with_limits(response_bytes="2MiB", concurrency=3), manifest=manifest)
    assert (guard.limits.response_bytes, guard.limits.concurrency) == (2**20, 3)
    guard.update(LOCKED.with_limits(response_bytes="1KiB"))
    assert (guard.limits.response_bytes, guard.limits.concurrency) == (1024, 9)
