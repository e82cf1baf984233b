"""Confine this process, and report what is enforced.

The values are loaded with this package. The four functions, and with them the layers of the platform, are loaded when
they are first used: layers import the values from here, and confining then imports nothing.
"""

from nyx_core.sandbox.confinement import (
    Confinement,
    Limit,
    Network,
    ResourceLimits,
    RunAs,
    SandboxPolicy,
    SandboxStatus,
)
from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport, SandboxError, SandboxReport, WitnessResult

TYPE_CHECKING = False  # importing `typing` takes an eighth of this import
if TYPE_CHECKING:
    from nyx_core.sandbox.api import apply_policy, confine, prepare, probe

__all__ = [
    "Confinement",
    "LayerReport",
    "LayerState",
    "Limit",
    "LimitReport",
    "Network",
    "ResourceLimits",
    "RunAs",
    "SandboxError",
    "SandboxPolicy",
    "SandboxReport",
    "SandboxStatus",
    "WitnessResult",
    "apply_policy",
    "confine",
    "prepare",
    "probe",
]


def __getattr__(name: str) -> object:
    if name not in ("apply_policy", "confine", "prepare", "probe"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nyx_core.sandbox import api

    return getattr(api, name)
