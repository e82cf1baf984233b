"""What an earlier confinement said it closed, for systems that cannot be asked. Trusted in one direction
only.
"""

from __future__ import annotations

import os

from nyx_core.layers import Posture
from nyx_core.sandbox.confinement import SandboxPolicy
from nyx_core.sandbox.policies import confinement_for


def announced_posture() -> Posture:
    """The axes of the policy that the environment names.

    A forged name can only forbid what would widen. It never counts as proof that anything is in force, so it
    carries no digest and every layer is applied again.
    """
    named = os.environ.get("SANDBOX_POLICY")
    if named not in {policy.value for policy in SandboxPolicy}:
        return Posture()
    return Posture(confinement_for(SandboxPolicy(named)).closed)
