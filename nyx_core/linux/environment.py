"""The environment on Linux: as everywhere, and the first block wiped, so that /proc/self/environ holds no secret."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import clear_environment, wipe
from nyx_core.posix.environment import Environment, environment_for
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

ENV_START, ENV_END = 50, 51  # fields of /proc/self/stat, counted from 1; proc_pid_stat(5)


def environment_block() -> tuple[int, int]:
    """Addresses between which execve(2) put the environment; (0, 0) where the kernel does not tell."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
        text = stat.read()
    # The second field is the program's name in parentheses and may contain spaces and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[ENV_START - 3]), int(fields[ENV_END - 3])


class WipedEnvironment(NamedTuple):
    """The layer."""

    name: str = "environment"

    def probe(self) -> LayerReport:
        """Count the variables."""
        return Environment().probe()

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Announce what is closed; where variables go, copy what stays and wipe the block they all came from."""
        if wanted.environment is None:
            return Environment().apply(wanted, _before)
        after = environment_for(wanted, os.environ)
        start, end = environment_block()
        os.environ.clear()
        # Entries without "=" never reached os.environ. Once nothing points into the block, it can be overwritten.
        clear_environment()
        os.environ.update(after)
        if not 0 < start <= end:
            return LayerReport(
                self.name,
                LayerState.DEGRADED,
                "removed, but the first block cannot be found",
                "a readable /proc",
            )
        wipe(start, end)
        kept = ", ".join(sorted(after)) or "none"
        return LayerReport(self.name, LayerState.ACTIVE, f"{end - start} bytes wiped; set now: {kept}")
