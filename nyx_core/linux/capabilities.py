"""Drops Linux capabilities for good. Source: capabilities(7), capget(2), prctl(2).

Capabilities belong to a thread: the ones of threads that exist already stay, and that is reported.
"""

from __future__ import annotations

import errno
import os
import struct
from _thread import get_native_id  # `threading` costs more to import than to drop them all
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    prctl,
    syscall,
)
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

VERSION_3 = 0x2008_0522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits per set
CAP_SETPCAP = 8
CAP_SYS_RESOURCE = 24


def _header() -> bytes:
    return struct.pack("=Ii", VERSION_3, 0)


def capability_sets() -> tuple[int, int, int]:
    """Effective, permitted and inheritable set of the calling thread, as bit masks."""
    data = bytearray(24)
    syscall("capget", _header(), data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread; raises `OSError(EPERM)` for a capability that it does not have."""
    words = (effective, permitted, inheritable)
    low = tuple(word & 0xFFFF_FFFF for word in words)
    high = tuple(word >> 32 for word in words)
    syscall("capset", _header(), struct.pack("=6I", *low, *high))


class Capabilities(NamedTuple):
    """The layer."""

    name: str = "capabilities"

    def probe(self) -> LayerReport:
        """Read what there is to drop."""
        effective, permitted, _ = capability_sets()
        facts = (("effective", f"{effective:#x}"), ("permitted", f"{permitted:#x}"))
        reason = "can be dropped" if permitted else "there are none to drop"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop all of them, or `CAP_SYS_RESOURCE` alone where the others may stay."""
        kept = ~(1 << CAP_SYS_RESOURCE) if wanted.capabilities else 0
        before_sets = capability_sets()
        if before_sets[0] >> CAP_SETPCAP & 1:
            _drop_bounding(kept)
        if not wanted.capabilities:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        wanted_sets = tuple(old & kept for old in before_sets)
        set_capabilities(*wanted_sets)
        left = capability_sets()
        if left != wanted_sets:
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the kernel kept some capabilities")
        return self._report(wanted, *left[:2])

    def _report(self, wanted: Confinement, effective: int, permitted: int) -> LayerReport:
        threads = _sets_of_threads()
        bounding = threads.get(get_native_id(), (0, None))[1]
        facts = (
            ("effective", f"{effective:#x}"),
            ("permitted", f"{permitted:#x}"),
            ("bounding", "unknown" if bounding is None else f"{bounding:#x}"),
        )
        others = sum(bool(more & ~permitted) for more, _ in threads.values())
        if others:
            reason = f"{others} threads that exist already keep capabilities"
            remedy = "confine before any thread starts"
            return LayerReport(self.name, LayerState.DEGRADED, reason, remedy, facts=facts)
        reason = "kept, but for CAP_SYS_RESOURCE" if wanted.capabilities else "all dropped"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts)


def _drop_bounding(kept: int) -> None:
    """Drop from the bounding set what is not `kept`. Needs CAP_SETPCAP; without it `no_new_privs` stands in."""
    for capability in range(64):
        if kept >> capability & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                break  # above the last capability of this kernel
            raise


def _sets_of_threads() -> dict[int, tuple[int, int]]:
    """Permitted and bounding set of every thread of this process, by its number. proc_pid_status(5)."""
    found: dict[int, tuple[int, int]] = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/status", "rb") as status:
                text = status.read()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        found[int(thread)] = (_set_in(text, b"\nCapPrm:"), _set_in(text, b"\nCapBnd:"))
    return found


def _set_in(status: bytes, name: bytes) -> int:
    return int(status.partition(name)[2].split(None, 1)[0], 16)
