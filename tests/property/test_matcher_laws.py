"""Laws of the compiled matcher, compared with a naive one that reads the rules one by one."""

import ipaddress
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from nyx_stream.policy.rules import ConnectRule, RequestRule

LABELS = st.sampled_from(["a", "b", "api", "cdn", "x-y", "com", "net", "example", "a_b"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
V4 = st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
V6 = st.integers(0, 2**128 - 1).map(lambda n: str(ipaddress.IPv6Address(n)))
PORTS = st.sampled_from([1, 80, 443, 8080, 65535])


@st.composite
def networks(draw: st.DrawFn) -> str:
    version = draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    length = draw(st.integers(0, bits))
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    network = kind((draw(st.integers(0, 2**bits - 1)), length), strict=False)
    return str(network) if version == 4 else f"[{network.network_address}]/{length}"


@st.composite
def connect_rules(draw: st.DrawFn) -> str:
    form = draw(st.integers(0, 5))
    if form == 0:
        return draw(NAMES)
    if form == 1:
        return f"*.{draw(LABELS)}.{draw(NAMES)}"
    if form == 2:
        return f"{draw(NAMES)}:{draw(PORTS)}"
    if form == 3:
        return draw(V4)
    if form == 4:
        return f"[{draw(V6)}]:{draw(PORTS)}"
    return draw(networks())


HOSTS = st.one_of(NAMES, V4, V6, st.builds("{}.{}".format, LABELS, NAMES))


def naive_connect(rule: str, host: str, port: int) -> bool:
    """Matches one rule literally as the grammar describes it."""
    parsed = ConnectRule.parse(rule)
    if parsed.port is not None and parsed.port != port:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if parsed.length is not None:
            return False
        return host.endswith("." + parsed.host) if parsed.wildcard else host == parsed.host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return parsed.length is not None and address in ipaddress.ip_network(f"{parsed.host}/{parsed.length}")


@given(st.lists(connect_rules(), max_size=6), st.lists(connect_rules(), max_size=3), HOSTS, PORTS)
def test_connect_agrees_with_a_naive_matcher(allow: list[str], deny: list[str], host: str, port: int) -> None:
    """Compiled rules decide as the naive matcher does, deny before allow."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host(*allow).deny_connect_host(*deny))
    expected = any(naive_connect(rule, host, port) for rule in allow)
    expected = expected and not any(naive_connect(rule, host, port) for rule in deny)
    assert guard.decide_connect(host, port).allowed == expected


PATHS = st.lists(st.sampled_from(["a", "b", "ab", "v1", "x.json", ""]), min_size=1, max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**", "v1", "*.json", "a*b", "**b", ""]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
METHODS = st.sampled_from(["GET", "POST", "PURGE", "TRACE"])


def naive_path(pattern: str, path: str) -> bool:
    """The description of `*` and `**` as a regular expression."""
    tokens = re.findall(r"\*\*+|\*|[^*]+", pattern)
    expression = "".join(".*" if t[:2] == "**" else "[^/]*" if t == "*" else re.escape(t) for t in tokens)
    return re.fullmatch(expression, path, re.DOTALL) is not None


@st.composite
def request_rules(draw: st.DrawFn) -> str:
    methods = draw(st.sampled_from(["", "GET ", "GET,PURGE "]))
    host = draw(st.sampled_from(["a.com", "*.a.com", "b.a.com", "c.net:8443"]))
    return f"{methods}https://{host}{draw(st.one_of(st.just(''), PATTERNS))}"


def naive_request(rule: str, method: str, host: str, port: int, path: str, *, deny: bool) -> bool:
    parsed = RequestRule.parse(rule)
    if parsed.port != port:
        return False
    if not (host.endswith("." + parsed.host) if parsed.wildcard else host == parsed.host):
        return False
    if parsed.methods is None:
        methods_fit = deny or method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    else:
        methods_fit = method in parsed.methods
    if parsed.path is None:
        return methods_fit
    spellings = [path, re.sub("/+", "/", path)] if deny else [path]
    return methods_fit and any(naive_path(parsed.path.text, spelling) for spelling in spellings)


@given(
    st.lists(request_rules(), max_size=5),
    st.lists(request_rules(), max_size=2),
    METHODS,
    st.sampled_from([("a.com", 443), ("b.a.com", 443), ("x.b.a.com", 443), ("c.net", 8443), ("c.net", 443)]),
    PATHS,
)
def test_requests_agree_with_a_naive_matcher(
    allow: list[str], deny: list[str], method: str, origin: tuple[str, int], path: str
) -> None:
    """Compiled request rules decide as the naive matcher does."""
    host, port = origin
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_request(*allow).deny_request(*deny))
    expected = method != "TRACE" and any(naive_request(r, method, host, port, path, deny=False) for r in allow)
    expected = expected and not any(naive_request(r, method, host, port, path, deny=True) for r in deny)
    assert guard.decide_request(method, f"https://{host}:{port}{path}").allowed == expected


NAMES_ON_DISK = st.sampled_from(["a", "b", "ab", "a.txt", "..", ".", "", "A", "é"])
DISK_PATHS = st.lists(NAMES_ON_DISK, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PREFIXES = st.lists(st.sampled_from(["a", "b", "ab", "A", "é"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


def naive_normal(path: str) -> list[str]:
    kept: list[str] = []
    for name in path.split("/"):
        if name == "..":
            kept = kept[:-1]
        elif name not in ("", "."):
            kept.append(name)
    return kept


def naive_covers(prefix: str, path: str) -> bool:
    inside = naive_normal(prefix)
    return naive_normal(path)[: len(inside)] == inside


@given(
    st.lists(st.tuples(PREFIXES, st.sampled_from(["r", "rw"])), max_size=4),
    st.lists(PREFIXES, max_size=2),
    DISK_PATHS,
    st.sampled_from(["r", "rw"]),
)
def test_paths_agree_with_a_naive_matcher(allow: list[tuple[str, str]], deny: list[str], path: str, mode: str) -> None:
    """Compiled prefixes decide as the naive matcher does, also from the cache."""
    policy = SandboxPolicy.locked_down().deny_path_prefix(*deny)
    for prefix, given_mode in allow:
        policy = policy.allow_path_prefix(prefix, mode=given_mode)
    guard = SandboxGuard(policy, flavour="posix")
    expected = any(naive_covers(p, path) and (mode == "r" or m == "rw") for p, m in allow)
    expected = expected and not any(naive_covers(p, path) for p in deny)
    for _ in range(2):
        try:
            guard.check_path(path, mode)
            allowed = True
        except PermissionError:
            allowed = False
        assert allowed == expected == guard.decide_path(path, mode).allowed


@given(st.lists(connect_rules(), max_size=4), connect_rules(), HOSTS, PORTS)
def test_allow_rules_only_add_and_deny_rules_only_remove(rules: list[str], extra: str, host: str, port: int) -> None:
    """Adding an allow rule never removes an allowed target; adding a deny rule never adds one."""
    policy = SandboxPolicy.locked_down().allow_connect_host(*rules)
    before = SandboxGuard(policy).decide_connect(host, port).allowed
    assert SandboxGuard(policy.allow_connect_host(extra)).decide_connect(host, port).allowed >= before
    assert SandboxGuard(policy.deny_connect_host(extra)).decide_connect(host, port).allowed <= before


@given(connect_rules())
def test_a_connect_rule_is_read_back_as_it_is_printed(text: str) -> None:
    """parse(print(rule)) = rule."""
    rule = ConnectRule.parse(text)
    assert ConnectRule.parse(rule.text) == rule


@given(request_rules())
def test_a_request_rule_is_read_back_as_it_is_printed(text: str) -> None:
    """parse(print(rule)) = rule."""
    rule = RequestRule.parse(text)
    assert RequestRule.parse(rule.text) == rule


@given(
    st.lists(connect_rules(), max_size=3),
    st.lists(request_rules(), max_size=3),
    st.lists(PREFIXES, max_size=3),
    st.sampled_from(["1B", "64MiB", "3KiB"]),
)
def test_a_policy_is_read_back_as_it_is_printed(
    connect: list[str], request: list[str], prefixes: list[str], size: str
) -> None:
    """from_toml(to_toml(policy)) = policy."""
    policy = (
        SandboxPolicy.locked_down()
        .allow_connect_host(*connect)
        .deny_connect_host(*connect)
        .allow_request(*request)
        .deny_request(*request)
        .allow_path_prefix(*prefixes)
        .allow_path_prefix(*prefixes, mode="r")
        .deny_path_prefix(*prefixes)
        .with_limits(memory=size)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.toml"
        file.write_text(policy.to_toml(), encoding="utf-8")
        assert SandboxPolicy.from_toml(file) == policy
