"""The API: its names, its reports as text, platforms without layers, and what it imports."""

import ast
import json
import sys
from pathlib import Path

import pytest

import nyx_core
from nyx_core import sandbox
from nyx_core.sandbox import (
    LayerReport,
    LayerState,
    LimitReport,
    SandboxError,
    SandboxReport,
    SandboxStatus,
    WitnessResult,
    api,
    probe,
)
from nyx_core.sandbox.platform import current_platform

PACKAGE = Path(nyx_core.__file__).parent
REPORT = SandboxReport(
    platform="linux",
    kernel="6.18",
    machine="x86_64",
    facts=(("landlock_abi", "7"),),
    policy="strict",
    policy_hash="ab" * 32,
    layers=(
        LayerReport("limits", LayerState.ACTIVE, "set", limits=(LimitReport("core", "bytes", 0, 0, 0, 0, "noted"),)),
        LayerReport("cgroup", LayerState.UNAVAILABLE, "none mounted", "cgroup v2"),
        LayerReport("landlock", LayerState.DEGRADED, "old", stand_in="seccomp", facts=(("abi", "2"),)),
    ),
    limits=(LimitReport("core", "bytes", 0, 0, 0, 0, "noted"),),
    descriptors=(0, 1, 2),
    environment=("TZ",),
    witness=(WitnessResult("network", "socket", False, "succeeded"),),
)


def test_the_exported_names_exist() -> None:
    """Every exported name exists, including those of the contract."""
    contract = {
        "apply_policy", "confine", "probe", "SandboxPolicy", "SandboxStatus", "Confinement", "ResourceLimits",
        "SandboxReport", "SandboxError",
    }  # fmt: skip
    assert contract <= set(sandbox.__all__)
    assert all(hasattr(sandbox, name) for name in sandbox.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = sandbox.nothing_like_it


def test_a_report_is_plain_data() -> None:
    """The dictionary and the JSON are equal, with states as text."""
    plain = REPORT.to_dict()
    assert json.loads(REPORT.to_json()) == json.loads(json.dumps(plain))
    layer = json.loads(REPORT.to_json())["layers"][2]
    assert layer == {
        "name": "landlock",
        "state": "degraded",
        "reason": "old",
        "remedy": "",
        "stand_in": "seccomp",
        "facts": {"abi": "2"},
        "limits": [],
    }
    assert plain["witness"] == [{"axis": "network", "act": "socket", "refused": False, "answer": "succeeded"}]


def test_a_report_is_a_table() -> None:
    """Each layer has a line, a missing layer its remedy, and a successful attempt is marked."""
    table = REPORT.to_table()
    assert "linux 6.18 x86_64, landlock abi 7" in table
    assert "policy strict abababababab" in table
    assert "cgroup    unavailable  none mounted" in table
    assert "needs: cgroup v2" in table
    assert "core: 0/0 bytes, asked 0/0 (noted)" in table
    assert "network: socket: NOT REFUSED, succeeded" in table


def test_a_layer_holds_if_it_or_its_stand_in_enforces() -> None:
    """A degraded layer holds only if another stands in for it."""
    limits, cgroup, landlock = REPORT.layers
    assert (limits.holds, cgroup.holds, landlock.holds) == (True, False, True)
    assert REPORT.layer("nothing") is None


def test_probe_surveys_this_host() -> None:
    """The survey names the kernel and every layer with its reason."""
    survey = probe()
    assert survey.platform == sys.platform
    assert survey.layers
    assert all(layer.reason for layer in survey.layers)
    assert all(layer.remedy for layer in survey.layers if layer.state is LayerState.UNAVAILABLE)


@pytest.mark.parametrize("name", ["freebsd14", "emscripten", "aix"])
def test_a_platform_without_layers_is_none(name: str) -> None:
    """A platform without layers is `None`."""
    assert current_platform(name) is None


def test_without_layers_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`apply_policy` returns UNSUPPORTED, `confine` raises, and `probe` shows an empty table."""
    monkeypatch.setattr(api, "PLATFORM", None)
    assert sandbox.apply_policy(sandbox.SandboxPolicy.STRICT) is SandboxStatus.UNSUPPORTED
    with pytest.raises(SandboxError, match="no layers for"):
        sandbox.confine(sandbox.Confinement())
    assert "no layers for this platform" in sandbox.probe().to_table()


def test_an_unknown_policy_is_an_error() -> None:
    """A misspelt policy is refused before anything is applied."""
    with pytest.raises(ValueError, match="lenient"):
        sandbox.apply_policy("lenient")  # type: ignore[arg-type]


def _imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nyx_core_imports_the_standard_library_and_psutil_only(path: Path) -> None:
    """It imports neither `nyx_stream` nor third-party packages except psutil."""
    allowed = {*sys.stdlib_module_names, "psutil", "nyx_core", ""}
    assert _imported(path) <= allowed
