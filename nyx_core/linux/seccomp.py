"""Installs the seccomp filter on every thread, and reads its mark. `seccomp_rules` decides what it refuses.

Source: seccomp(2). The filter can't be removed, and is inherited by everything the process starts.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import address_of, prctl_errno, syscall
from nyx_core.linux.seccomp_mark import MARK, Program, mark_of, posture_from
from nyx_core.linux.seccomp_rules import SeccompRequest, Situation, rules_for
from nyx_core.linux.syscall_table import native_table
from nyx_core.sandbox.report import LayerReport, LayerState, errno_name

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.platform import Posture

SET_MODE_FILTER = 1
GET_ACTION_AVAIL = 2
TSYNC = 1
ACTIONS = (0x8000_0000, 0x0005_0000)  # kill the process, fail with an errno
REMEDY = "a kernel with CONFIG_SECCOMP_FILTER (Linux 4.14), and no outer filter that refuses seccomp(2)"


def posture() -> Posture:
    """What the filters of Nyx on this thread close."""
    return posture_from(lambda chunk: prctl_errno(MARK, chunk), os.getpid())


def install(program: bytes) -> None:
    """Install `program` on every thread of this process; raises `OSError`.

    EPERM or EACCES: neither `no_new_privs` nor CAP_SYS_ADMIN. ENOMEM: too many filters. EBUSY: a thread has a filter
    that this one wouldn't extend.
    """
    code = bytearray(program)
    header = struct.pack("=HxxxxxxQ", len(program) // 8, address_of(code))
    diverged = syscall("seccomp", SET_MODE_FILTER, TSYNC, header)
    if diverged != 0:
        raise OSError(errno.EBUSY, f"thread {diverged} has another seccomp filter")


class Seccomp(NamedTuple):
    """The layer."""

    name: str = "seccomp"

    def probe(self) -> LayerReport:
        """Whether the kernel supports the actions of the filter."""
        if native_table() is None:
            return self._unknown_machine()
        for action in ACTIONS:
            try:
                syscall("seccomp", GET_ACTION_AVAIL, 0, struct.pack("=I", action))
            except OSError as error:
                reason = f"no seccomp filters: {errno_name(error.errno)}"
                return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)
        return LayerReport(self.name, LayerState.ACTIVE, "filters with TSYNC", facts=_facts_of_status())

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Install the filter of `wanted`, stricter if Landlock could not be applied."""
        table = native_table()
        if table is None:
            return self._unknown_machine()
        here = Situation(pid=os.getpid(), landlock=_landlock_abi(before))
        program = _program(SeccompRequest.of(wanted), here)
        install(program.stamped(mark_of(wanted, here.pid)))
        facts = (
            ("instructions", str(len(program.code) // 8)),
            ("rules", str(program.rules)),
            ("machine", table.machine),
        )
        reason = f"filter installed on every thread, closes: {', '.join(['kernel', *sorted(wanted.closed)])}"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts)

    def _unknown_machine(self) -> LayerReport:
        reason = f"no table of system calls for {os.uname().machine}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, "x86-64 or AArch64 with a 64-bit Python")


@lru_cache(maxsize=2)
def _program(wanted: SeccompRequest, here: Situation) -> Program:
    """The program for this machine. Cached, because a process that confines itself twice mostly needs the same one."""
    table = native_table()
    if table is None:
        raise OSError(errno.ENOSYS, "no table of system calls")
    return Program.compile(table, rules_for(wanted, here))


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
