"""Installs the seccomp filter on every thread, and reads its mark. What it refuses is decided in `seccomp_rules`.

Source: seccomp(2). Irreversible; inherited by everything the process starts.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import address_of, prctl_errno, syscall
from nyx_core.linux.seccomp_mark import MARK, mark_of, posture_from
from nyx_core.linux.seccomp_program import Program, compile_shape
from nyx_core.linux.seccomp_rules import Shape, Situation
from nyx_core.linux.syscall_table import native_table
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.layers import Posture
    from nyx_core.sandbox.confinement import Confinement

SET_MODE_FILTER = 1
GET_ACTION_AVAIL = 2
TSYNC = 1
ACTIONS = (0x8000_0000, 0x0005_0000)  # kill the process, answer an errno
REMEDY = "a kernel with CONFIG_SECCOMP_FILTER (Linux 4.14), and no outer filter that refuses seccomp(2)"


def posture() -> Posture:
    """What filters of Nyx in force on this thread close."""
    return posture_from(_ask, os.getpid())


def _ask(chunk: int) -> int:
    return prctl_errno(MARK, chunk)


def install(program: bytes) -> None:
    """Put `program` on every thread of this process; raises `OSError`.

    EPERM or EACCES: neither `no_new_privs` nor CAP_SYS_ADMIN. ENOMEM: too many filters. EBUSY: a thread has a filter
    of its own that this one would not extend.
    """
    code = bytearray(program)
    header = struct.pack("=HxxxxxxQ", len(program) // 8, address_of(code))
    straggler = syscall("seccomp", SET_MODE_FILTER, TSYNC, header)
    if straggler != 0:
        raise OSError(errno.EBUSY, f"thread {straggler} has a seccomp filter of its own")


class Seccomp(NamedTuple):
    """The layer."""

    name: str = "seccomp"

    def probe(self) -> LayerReport:
        """Ask whether the kernel has the two answers that the filter gives."""
        if native_table() is None:
            return self._unknown_machine()
        for action in ACTIONS:
            try:
                syscall("seccomp", GET_ACTION_AVAIL, 0, struct.pack("=I", action))
            except OSError as error:
                reason = f"no seccomp filters: {errno.errorcode.get(error.errno or 0, 'unknown error')}"
                return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)
        return LayerReport(self.name, LayerState.ACTIVE, "filters with TSYNC", facts=_facts_of_status())

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Install the filter of `wanted`, stricter where Landlock could not be applied."""
        table = native_table()
        if table is None:
            return self._unknown_machine()
        here = Situation(pid=os.getpid(), landlock=_landlock_abi(before))
        program = _program(Shape.of(wanted), here)
        install(program.stamped(mark_of(wanted, here.pid)))
        facts = (
            ("instructions", str(len(program.code) // 8)),
            ("rules", str(program.rules)),
            ("machine", table.machine),
        )
        return LayerReport(
            self.name,
            LayerState.ACTIVE,
            f"filter installed on every thread, {self._closes(wanted)}",
            facts=facts,
        )

    def _closes(self, wanted: Confinement) -> str:
        return "closes: " + ", ".join(["kernel", *sorted(wanted.closed)])

    def _unknown_machine(self) -> LayerReport:
        reason = f"no table of system calls for {os.uname().machine}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, "x86-64 or AArch64 with a 64-bit Python")


@lru_cache(maxsize=2)
def _program(shape: Shape, here: Situation) -> Program:
    """The program for this machine. Kept: whoever confines a second time mostly asks for the same system calls."""
    table = native_table()
    if table is None:
        raise OSError(errno.ENOSYS, "no table of system calls")
    return compile_shape(table, shape, here)


def _landlock_abi(before: tuple[LayerReport, ...]) -> int:
    for report in before:
        if report.name == "landlock":
            return int(dict(report.facts).get("enforced_abi", "0"))
    return 0


def _facts_of_status() -> tuple[tuple[str, str], ...]:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Seccomp_filters:"):
                    return (("outer_filters", line.split()[1]),)
    except OSError:
        pass
    return ()
