"""The Windows platform: the engine with its layers, over recorded calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nyx_core.sandbox.confinement import SandboxPolicy, confinement_for
from nyx_core.sandbox.engine import enforce, survey
from nyx_core.sandbox.platform import Platform, Posture, current_platform
from nyx_core.sandbox.report import LayerState, SandboxError
from nyx_core.windows.job_objects import JobObject
from nyx_core.windows.platform import FileAccess
from tests.core.platforms.fake_windows import FakeWindows

MINIMAL = confinement_for(SandboxPolicy.MINIMAL)
STRICT = confinement_for(SandboxPolicy.STRICT)


def windows(system: FakeWindows) -> Platform:
    """The layers of Windows that `system` can fake; the witness needs a real one."""
    layers = (FileAccess(), JobObject(system.kernel))
    return Platform("windows", layers, lambda wanted, applied: (), lambda: (), posture=Posture)


def test_the_platform_of_windows_has_its_layers_in_order() -> None:
    """The access layer comes first, before anything is entered, and the job last."""
    platform = current_platform("win32")
    assert platform is not None
    assert [layer.name for layer in platform.layers] == ["access", "process", "environment", "job_object"]


def test_minimal_holds() -> None:
    """A job enforces everything that MINIMAL requests."""
    report = enforce(windows(FakeWindows()), MINIMAL)
    assert all(layer.holds for layer in report.layers)
    assert [limit.name for limit in report.limits] == ["memory", "processes", "open_files", "core"]


def test_strict_is_refused_before_a_job_is_entered() -> None:
    """What no layer enforces fails closed, with the report, and without a call."""
    system = FakeWindows()
    with pytest.raises(SandboxError, match="layer access is unavailable") as caught:
        enforce(windows(system), replace(STRICT, may_degrade=frozenset()))
    assert caught.value.report is not None
    assert not system.library.calls


def test_strict_is_applied_if_access_may_degrade() -> None:
    """With `access` in may_degrade the job is entered, and the report still says what stays open."""
    system = FakeWindows()
    report = enforce(windows(system), replace(STRICT, may_degrade=frozenset({"access"})))
    access = report.layer("access")
    assert access is not None
    assert access.state is LayerState.UNAVAILABLE
    assert system.chain


def test_a_failing_job_is_an_error_with_the_report() -> None:
    """The engine raises, and names the layer and the call."""
    with pytest.raises(SandboxError, match="AssignProcessToJobObject") as caught:
        enforce(windows(FakeWindows(failures={"AssignProcessToJobObject": 87})), MINIMAL)
    assert caught.value.layer == "job_object"


def test_a_survey_changes_nothing() -> None:
    """Probing reports both layers and enters no job."""
    system = FakeWindows()
    report = survey(windows(system))
    assert [layer.name for layer in report.layers] == ["access", "job_object"]
    assert not system.chain
