"""Environment variables: which stay, and which tell a plugin what it may do. Decided by pure functions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nyx_core.sandbox.confinement import Confinement

OWN = ("SANDBOX_POLICY", "NO_SUBPROCESS", "NO_NETWORK", "NO_FILESYSTEM_WRITE")


def announcements(wanted: Confinement) -> dict[str, str]:
    """The variables that say what is closed."""
    told = {} if wanted.policy is None else {"SANDBOX_POLICY": wanted.policy.value}
    closed = {
        "NO_SUBPROCESS": not wanted.subprocess,
        "NO_NETWORK": wanted.network.sockets == "none",
        "NO_FILESYSTEM_WRITE": not wanted.writable,
    }
    return told | {name: "1" for name, is_closed in closed.items() if is_closed}


def environment_for(wanted: Confinement, current: Mapping[str, str]) -> dict[str, str]:
    """The whole environment afterwards. Only this decides what `OWN` say: an inherited value proves nothing."""
    kept = (
        current
        if wanted.environment is None
        else {name: current[name] for name in wanted.environment if name in current}
    )
    return {name: value for name, value in kept.items() if name not in OWN} | announcements(wanted)


class Environment(NamedTuple):
    """The layer, for a system whose first environment block cannot be wiped."""

    name: str = "environment"

    def probe(self) -> LayerReport:
        """Count the variables."""
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(os.environ)} variables set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Remove what does not stay, then set what is announced."""
        after = environment_for(wanted, os.environ)
        for name in set(os.environ) - set(after):
            del os.environ[name]
        os.environ.update(after)
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(after)} variables: {', '.join(sorted(after)[:12])}")
