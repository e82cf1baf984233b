"""Names and numbers of system calls of one architecture. Pure data; never calls the kernel."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class SyscallTable(NamedTuple):
    """Every system call that Nyx knows of one architecture; a number that is missing here is unknown.

    `audit_arch` is the value of `seccomp_data.arch` (linux/audit.h); `machine` is that of uname(2).
    """

    machine: str
    audit_arch: int
    names: Mapping[int, str]
    numbers: Mapping[str, int]

    @classmethod
    def of_runs(cls, machine: str, audit_arch: int, runs: Mapping[int, str]) -> SyscallTable:
        """Build a table from runs of names, each keyed by the number of its first name."""
        names = {first + index: name for first, run in runs.items() for index, name in enumerate(run.split())}
        numbers = {name: number for number, name in names.items()}
        return cls(machine, audit_arch, MappingProxyType(names), MappingProxyType(numbers))


@cache
def native_table() -> SyscallTable | None:
    """The table of this process, or `None` on an architecture that Nyx does not know (32-bit ones too)."""
    machine = os.uname().machine
    if sys.maxsize < 2**32:
        return None
    if machine == "x86_64":
        from nyx_core.linux.syscalls_x86_64 import X86_64

        return X86_64
    if machine == "aarch64":
        from nyx_core.linux.syscalls_aarch64 import AARCH64

        return AARCH64
    return None
