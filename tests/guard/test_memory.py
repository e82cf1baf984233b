"""Tests of what a guard remembers: only what was allowed, and no more than its bounds."""

from nyx_stream.guard.decision_cache import MAX_ENTRIES, DecisionCache
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy


def test_hosts_ports_and_zones_are_bounded() -> None:
    """Neither hosts nor zones nor ports grow past their bounds, whatever is allowed."""
    memory = DecisionCache()
    for number in range(MAX_ENTRIES + 10):
        memory.add_connect(f"h{number}.z{number}.example", 443, f"z{number}.example")
    for port in range(1, 100):
        memory.add_connect("a.example", port, None)
    assert len(memory.connects) <= 16
    assert memory.zones.keys() == memory.connects.keys()
    for known in (*memory.connects.values(), *memory.zones.values()):
        assert len(known) <= MAX_ENTRIES


def test_hosts_of_an_open_zone_are_bounded() -> None:
    """A flood of new names below a wildcard is let in and does not grow the memory past its bound."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example"))
    for number in range(2 * MAX_ENTRIES):
        guard.check_connect(f"h{number}.cdn.example", 443)
        assert len(guard._state.connects[443]) <= MAX_ENTRIES


def test_an_audited_guard_remembers_no_connection() -> None:
    """Where every check is to be recorded, none takes the short way: each one is recorded."""
    events: list[object] = []
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example"), audit=events.append)
    for name in ("a", "b", "a"):
        guard.check_connect(f"{name}.cdn.example", 443)
    assert len(events) == 3
    assert not guard._state.connects


def test_a_new_policy_starts_with_an_empty_memory() -> None:
    """What the old policy allowed is not allowed by remembering it."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.cdn.example").allow_path_prefix("/data"))
    guard.check_connect("a.cdn.example", 443)
    guard.check_path("/data/x")
    guard.update(SandboxPolicy.locked_down())
    assert not guard.decide_connect("a.cdn.example", 443).allowed
    assert not guard._state.connects
    assert not guard._state.folders["r"]
