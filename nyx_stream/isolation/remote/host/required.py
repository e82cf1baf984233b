"""Which layers a worker must have to count as sealed, by system, and which of them this machine lacks.

Asks `nyx_core.sandbox` what could be applied, and applies nothing.
"""

import sys

from nyx_core.sandbox import LayerState, probe

NO_LAYERS = "kernel"
"""Stands for whatever would confine a process, on a system that `nyx_core` has no layers for."""

_EVERYWHERE = frozenset({"descriptors", "environment", "limits"})
_LOCKS = {
    "linux": frozenset({"capabilities", "no_new_privs", "landlock", "seccomp"}),
    "darwin": frozenset({"seatbelt"}),
    "openbsd": frozenset({"pledge"}),
}


def required_on(platform: str) -> frozenset[str]:
    """Returns the layers without which a worker is not sealed on a `sys.platform`."""
    locks = next((layers for name, layers in _LOCKS.items() if platform.startswith(name)), frozenset({NO_LAYERS}))
    return _EVERYWHERE | locks


REQUIRED = required_on(sys.platform)


def gaps_here() -> tuple[tuple[str, str], ...]:
    """Returns the required layers that cannot be applied here, each with the reason and what would provide it."""
    survey = probe()
    found = []
    for name in sorted(REQUIRED):
        layer = survey.layer(name)
        if layer is None:
            found.append((name, f"there is none for {sys.platform}"))
        elif layer.state is not LayerState.ACTIVE:
            found.append((name, f"{layer.reason}; needs {layer.remedy}" if layer.remedy else layer.reason))
    return tuple(found)
