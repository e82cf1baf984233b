"""Says what no Job Object can close: files, sockets, native code. Applies nothing and pretends nothing.

Windows has this for a process that is started in an AppContainer, not for one that runs already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

BY_THE_JOB = frozenset({"subprocess"})
REMEDY = "a process that is started in an AppContainer, or `access` in may_degrade, where the guard decides alone"


@dataclass(frozen=True, slots=True)
class Access:
    """The layer that is missing on Windows."""

    name: str = "access"

    def probe(self) -> LayerReport:
        """Nothing to find out."""
        reason = "a running process cannot give up files, sockets or native code"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Name what `wanted` closes and nothing here enforces."""
        missing = beyond_the_job(wanted)
        if not missing:
            return LayerReport(self.name, LayerState.DISABLED, "nothing was asked for that Windows lacks")
        reason = f"Windows has no means, for a running process, for: {', '.join(missing)}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)


def beyond_the_job(wanted: Confinement) -> tuple[str, ...]:
    """What `wanted` asks for and no layer of Windows does: closed axes, then other fields by name."""
    fields = {
        "keep_descriptors": wanted.keep_descriptors is not None,
        "run_as": wanted.run_as is not None,
        "new_session": wanted.new_session,
        "namespaces": bool(wanted.namespaces),
        "cgroup": wanted.cgroup,
    }
    return (*sorted(wanted.closed - BY_THE_JOB), *(name for name, asked in fields.items() if asked))
