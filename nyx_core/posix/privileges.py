"""Becomes another user and group with the calls that POSIX has, and proves that there is no way back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

ROOT = 0


@dataclass(frozen=True, slots=True)
class Privileges:
    """The layer. setuid(2) and setgid(2) of root set the real, effective and saved ids at once."""

    name: str = "privileges"

    def probe(self) -> LayerReport:
        """Whether another user could be become."""
        if os.geteuid() == ROOT:
            return LayerReport(self.name, LayerState.ACTIVE, "can become another user")
        return LayerReport(self.name, LayerState.UNAVAILABLE, f"runs as uid {os.geteuid()}", "root")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop supplementary groups, then the group, then the user: the other order could not."""
        target = wanted.run_as
        if target is None:
            return LayerReport(self.name, LayerState.DISABLED, f"stays uid {os.geteuid()}, as asked")
        if (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) != (target.uid,) * 2 + (target.gid,) * 2:
            os.setgroups([])
            os.setgid(target.gid)
            os.setuid(target.uid)
        if _can_become_root():
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the saved user is still root: end this process")
        found = (os.getuid(), os.geteuid(), os.getgid(), os.getegid())
        if found != (target.uid, target.uid, target.gid, target.gid):
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"the kernel kept other ids: {found}")
        return LayerReport(self.name, LayerState.ACTIVE, f"uid {target.uid}, gid {target.gid}")


def _can_become_root() -> bool:
    try:
        os.setuid(ROOT)
    except PermissionError:
        return False
    return True
