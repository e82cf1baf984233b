"""The contract of the guard's public interface: signatures, defaults, and what errors carry."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from nyx_stream.plugin_sandbox import (
    Decision,
    FilesystemDenied,
    NetworkDenied,
    SandboxDenied,
    SandboxGuard,
    SandboxPolicy,
)


def test_denials_are_permission_errors() -> None:
    """Code that handles PermissionError also handles denials."""
    assert issubclass(SandboxDenied, PermissionError)
    assert issubclass(NetworkDenied, SandboxDenied)
    assert issubclass(FilesystemDenied, SandboxDenied)


def test_a_decision_has_three_fields() -> None:
    """The fields are allowed, rule and reason; a decision is frozen."""
    assert [field.name for field in dataclasses.fields(Decision)] == ["allowed", "rule", "reason"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Decision(True, None, "").allowed = False  # type: ignore[misc]


def test_every_builder_call_takes_one_or_more_rules() -> None:
    """Each call returns a new policy."""
    policy = SandboxPolicy.locked_down()
    for name, rules in {
        "allow_connect_host": ("a.example", "b.example"),
        "deny_connect_host": ("a.example", "b.example"),
        "allow_request": ("https://a.example", "https://b.example"),
        "deny_request": ("https://a.example", "https://b.example"),
        "allow_path_prefix": ("/a", Path("/b")),
        "deny_path_prefix": ("/a", Path("/b")),
    }.items():
        build = getattr(policy, name)
        assert build(rules[0]) != policy
        assert build(*rules) != build(rules[0])


def test_the_mode_of_a_prefix_defaults_to_rw() -> None:
    """`allow_path_prefix` grants writing unless `mode` is given."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("/tmp/nyx"), flavour="posix")
    guard.check_path("/tmp/nyx/a", mode="rw")


def test_a_check_returns_none_and_defaults_to_reading() -> None:
    """`check_path(path)` checks reading."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("/tmp/nyx", mode="r"), flavour="posix")
    assert inspect.signature(guard.check_path).parameters["mode"].default == "r"
    assert guard.check_path("/tmp/nyx/a") is None  # type: ignore[func-returns-value]


def test_a_denial_has_its_attributes() -> None:
    """A denial has plugin, capability, action, target, rule and reason; its text says denied."""
    guard = SandboxGuard(SandboxPolicy.locked_down().deny_connect_host("evil.example"), plugin="weather")
    with pytest.raises(NetworkDenied) as caught:
        guard.check_connect("evil.example", 443)
    denied = caught.value
    assert (denied.plugin, denied.rule) == ("weather", "evil.example")
    assert (denied.capability, denied.action, denied.target) == ("connect", "connect", "evil.example:443")
    assert denied.reason
    assert "weather" in str(denied)
    assert "denied" in str(denied)
