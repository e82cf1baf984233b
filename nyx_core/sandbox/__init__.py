"""The doorway of the OS layer: confine this process, and learn what really holds. Knows no plugins."""

from nyx_core.sandbox.confinement import (
    Confinement,
    Limit,
    Network,
    ResourceLimits,
    RunAs,
    SandboxPolicy,
    SandboxStatus,
)
from nyx_core.sandbox.doorway import apply_policy, confine, probe
from nyx_core.sandbox.errors import SandboxError
from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport, SandboxReport, WitnessResult

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
    "probe",
]
