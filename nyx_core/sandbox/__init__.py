"""The doorway of the OS layer: confine this process, and learn what really holds. Knows no plugins.

The values are loaded with this package. The four functions, and with them the platform's layers, are loaded when they
are first named: layers import the values from here, and confining itself then imports nothing.
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
from nyx_core.sandbox.errors import SandboxError
from nyx_core.sandbox.report import LayerReport, LayerState, LimitReport, SandboxReport, WitnessResult

TYPE_CHECKING = False  # `typing` takes an eighth of what this import does
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
    from nyx_core.sandbox import api as doorway

    return getattr(doorway, name)
