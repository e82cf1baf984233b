"""Becomes another user and group, without a way back. setresuid(2), setresgid(2), setgroups(2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement


class Privileges(NamedTuple):
    """The layer."""

    name: str = "privileges"

    def probe(self) -> LayerReport:
        """Whether another user could be become."""
        if os.geteuid() == 0:
            return LayerReport(self.name, LayerState.ACTIVE, "can become another user")
        return LayerReport(self.name, LayerState.UNAVAILABLE, f"runs as uid {os.geteuid()}", "root, or CAP_SETUID")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop supplementary groups, then the group, then the user: the other order could not."""
        target = wanted.run_as
        if target is None:
            return LayerReport(self.name, LayerState.DISABLED, f"stays uid {os.geteuid()}, as asked")
        ids = (target.uid,) * 3
        groups = (target.gid,) * 3
        if os.getresuid() != ids or os.getresgid() != groups or os.getgroups():
            os.setgroups([])
            os.setresgid(*groups)
            os.setresuid(*ids)
        if os.getresuid() != ids or os.getresgid() != groups or os.getgroups():
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the kernel kept another user or group")
        return LayerReport(self.name, LayerState.ACTIVE, f"uid {target.uid}, gid {target.gid}, no other groups")
