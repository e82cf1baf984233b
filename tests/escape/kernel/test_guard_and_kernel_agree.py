"""The guard decides by text what Landlock decides by directory: on every spelling that both can judge they agree."""

import pytest

from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy
from tests.core.child import identities, run_cases


@pytest.mark.parametrize("uid", identities())
def test_guard_and_kernel_agree(uid: int) -> None:
    """No spelling of a path is allowed by one and refused by the other, for reading and for writing."""
    outcome = run_cases("tests.escape.kernel.cases_paths", uid)["kernel_verdicts"]
    assert outcome.ended == "returned", outcome
    judged = {"allowed": 0, "refused": 0}
    for root, path, mode, kernel in outcome.value:
        policy = SandboxPolicy.locked_down().allow_path_prefix(f"{root}/read", mode="r")
        guard = SandboxGuard(policy.allow_path_prefix(f"{root}/write", mode="rw"))
        if kernel in judged:
            judged[kernel] += 1
            assert guard.decide_path(path, mode).allowed == (kernel == "allowed"), (path, mode, kernel)
    assert judged["allowed"] > 40
    assert judged["refused"] > 100
