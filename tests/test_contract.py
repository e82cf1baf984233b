"""The contract that hosts, plugins and external tests rely on: names, signatures, defaults."""

import dataclasses
import inspect
from pathlib import Path

import pytest

import nyx_stream
from nyx_stream import plugin_sandbox
from nyx_stream.plugin_sandbox import (
    Decision,
    FilesystemDenied,
    NetworkDenied,
    SandboxDenied,
    SandboxGuard,
    SandboxPolicy,
)


def test_the_package_exports_the_names_for_authors_and_hosts() -> None:
    """The package exports `Plugin` and `export` for authors, and `PluginHost` for hosts."""
    for name in ("Plugin", "export", "PluginHost"):
        assert name in nyx_stream.__all__
        assert getattr(nyx_stream, name)
    with pytest.raises(AttributeError):
        _ = nyx_stream.nothing


def test_plugin_sandbox_exports_the_names_of_the_contract() -> None:
    """It exports the policy, the guard and the errors."""
    assert set(plugin_sandbox.__all__) >= {
        "SandboxPolicy",
        "SandboxGuard",
        "SandboxDenied",
        "NetworkDenied",
        "FilesystemDenied",
    }


def test_denials_are_permission_errors() -> None:
    """Code that handles `PermissionError` also handles denials."""
    assert issubclass(SandboxDenied, PermissionError)
    assert issubclass(NetworkDenied, SandboxDenied)
    assert issubclass(FilesystemDenied, SandboxDenied)


def test_a_decision_has_three_fields() -> None:
    """A decision has `allowed`, `rule` and `reason`, and is frozen."""
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
    """`allow_path_prefix` grants writing by default."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("/tmp/nyx"), flavour="posix")
    guard.check_path("/tmp/nyx/a", mode="rw")


def test_a_check_returns_none_and_defaults_to_reading() -> None:
    """`check_path(path)` asks for reading."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("/tmp/nyx", mode="r"), flavour="posix")
    assert inspect.signature(guard.check_path).parameters["mode"].default == "r"
    assert guard.check_path("/tmp/nyx/a") is None  # type: ignore[func-returns-value]


def test_a_denial_carries_its_facts() -> None:
    """It has `plugin`, `capability`, `action`, `target`, `rule` and `reason`, and its text contains "denied"."""
    guard = SandboxGuard(SandboxPolicy.locked_down().deny_connect_host("evil.example"), plugin="weather")
    with pytest.raises(NetworkDenied) as caught:
        guard.check_connect("evil.example", 443)
    denied = caught.value
    assert (denied.plugin, denied.rule) == ("weather", "evil.example")
    assert (denied.capability, denied.action, denied.target) == ("connect", "connect", "evil.example:443")
    assert denied.reason
    assert "weather" in str(denied)
    assert "denied" in str(denied)
