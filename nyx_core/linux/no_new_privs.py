"""Sets `no_new_privs`: nothing this process executes gains privileges. prctl(2), PR_SET_NO_NEW_PRIVS, Linux 3.5.

Covers the calling thread and what it starts; installing the seccomp filter with TSYNC sets it on every other thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS, prctl
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement


class NoNewPrivs(NamedTuple):
    """The layer."""

    name: str = "no_new_privs"

    def probe(self) -> LayerReport:
        """Read the bit."""
        already = prctl(PR_GET_NO_NEW_PRIVS) == 1
        return LayerReport(self.name, LayerState.ACTIVE, "set already" if already else "can be set")

    def apply(self, _wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set the bit, and read it back."""
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if prctl(PR_GET_NO_NEW_PRIVS) != 1:
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the bit did not stay", "Linux 3.5")
        return LayerReport(self.name, LayerState.ACTIVE, "set; nothing executed gains privileges")
