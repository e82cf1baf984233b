"""The guard decides by text what Landlock decides by directory, and they agree on every spelling."""

import pytest

from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from tests.core.child import identities, run_cases


@pytest.mark.parametrize("uid", identities())
def test_guard_and_kernel_agree(uid: int) -> None:
    """No spelling of a path is allowed by one and refused by the other, for reading and for writing."""
    outcome = run_cases("tests.escape.kernel.cases_paths", uid)["kernel_verdicts"]
    assert outcome.ended == "returned", outcome
    decided = {"allowed": 0, "refused": 0}
    for root, path, mode, kernel in outcome.value:
        policy = SandboxPolicy.locked_down().allow_path_prefix(f"{root}/read", mode="r")
        guard = SandboxGuard(policy.allow_path_prefix(f"{root}/write", mode="rw"))
        if kernel in decided:
            decided[kernel] += 1
            assert guard.decide_path(path, mode).allowed == (kernel == "allowed"), (path, mode, kernel)
    assert decided["allowed"] > 40
    assert decided["refused"] > 100
