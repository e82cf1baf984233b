"""What the machine that the tests run on can enforce, and how to have workers made as on others."""

import pytest

from nyx_core.sandbox import LayerState, probe


def missing() -> str:
    """What this machine lacks to seal a process, or nothing."""
    report = probe()
    for name in ("landlock", "seccomp"):
        layer = report.layer(name)
        if layer is None:
            return f"no {name} on {report.platform}"
        if layer.state is not LayerState.ACTIVE:
            return f"{name}: {layer.reason}"
    return ""


sealed_here = pytest.mark.skipif(bool(missing()), reason=f"no worker can be sealed: {missing()}")


def without_fork(patch: pytest.MonkeyPatch) -> None:
    """Has hosts that load their first sealed plugin from now on start an interpreter for each worker."""
    patch.setattr("nyx_stream.isolation.process.backend.FORK_IS_SAFE", False)
