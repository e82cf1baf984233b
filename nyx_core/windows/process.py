"""What a process inherits and can change of itself on Windows: the umask and the working directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement


@dataclass(frozen=True, slots=True)
class Process:
    """The layer."""

    name: str = "process"

    def probe(self) -> LayerReport:
        """Nothing can be missing."""
        return LayerReport(self.name, LayerState.ACTIVE, "umask and directory can be set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set them. The C library keeps only whether new files may be written; access lists decide the
        rest.
        """
        os.umask(wanted.umask)
        done = f"umask {wanted.umask:03o}, of which Windows keeps the owner's write bit"
        if wanted.working_directory is not None:
            os.chdir(wanted.working_directory)
            done += ", working directory set"
        return LayerReport(self.name, LayerState.ACTIVE, done)
