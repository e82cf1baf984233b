"""The decision cache: it holds allowed targets only, and stays within its bounds."""

from nyx_stream.guard.compiled_policy import CompiledPolicy
from nyx_stream.guard.decision_cache import MAX_ENTRIES, DecisionCache
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from nyx_stream.policy import NO_PLACES
from tests.guard.caches import cache_of


def test_hosts_ports_and_zones_are_bounded() -> None:
    """Hosts, zones and ports stay within their bounds when many targets are allowed."""
    cache = DecisionCache(CompiledPolicy(SandboxPolicy.locked_down(), None, NO_PLACES, "posix"))
    for number in range(MAX_ENTRIES + 10):
        cache.add_connect(f"h{number}.z{number}.example", 443, f"z{number}.example")
    for port in range(1, 100):
        cache.add_connect("a.example", port, None)
    assert len(cache.connects) <= 16
    assert cache.zones.keys() == cache.connects.keys()
    for entries in (*cache.connects.values(), *cache.zones.values()):
        assert len(entries) <= MAX_ENTRIES


def test_hosts_of_an_open_zone_are_bounded() -> None:
    """A flood of new names below a wildcard is allowed and does not grow the cache past its bound."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example"))
    for number in range(2 * MAX_ENTRIES):
        guard.check_connect(f"h{number}.cdn.example", 443)
        assert len(cache_of(guard).connects[443]) <= MAX_ENTRIES


def test_targets_of_every_kind_are_bounded() -> None:
    """A flood of distinct allowed targets does not grow the cache past its bounds; denied targets aren't cached."""
    policy = SandboxPolicy.locked_down().allow_connect_host("*.example.com").allow_path_prefix("/data")
    guard = SandboxGuard(policy, flavour="posix")
    for number in range(3 * MAX_ENTRIES):
        guard.check_connect(f"h{number}.example.com", 443)
        guard.check_request("GET", f"https://h.example.com/{number}")
        guard.check_path(f"/data/{number}/x")
    cache = cache_of(guard)
    assert len(cache.connects) <= MAX_ENTRIES
    assert len(cache.requests) <= MAX_ENTRIES
    assert len(cache.folders["r"]) <= MAX_ENTRIES
    before = len(cache.connects)
    for number in range(1000):
        assert not guard.decide_connect(f"h{number}.evil.net", 443).allowed
    assert len(cache.connects) == before


def test_an_audited_guard_caches_no_connection() -> None:
    """Every check of an audited guard is recorded, so none is answered from the cache."""
    events: list[object] = []
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example"), audit=events.append)
    for name in ("a", "b", "a"):
        guard.check_connect(f"{name}.cdn.example", 443)
    assert len(events) == 3
    assert not cache_of(guard).connects


def test_a_new_policy_starts_with_an_empty_cache() -> None:
    """A target that the old policy allowed is not allowed from the cache."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example").allow_path_prefix("/data"))
    guard.check_connect("a.cdn.example", 443)
    guard.check_path("/data/x")
    guard.update(SandboxPolicy.locked_down())
    assert not guard.decide_connect("a.cdn.example", 443).allowed
    assert not cache_of(guard).connects
    assert not cache_of(guard).folders["r"]
