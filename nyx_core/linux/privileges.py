"""Drops privileges irreversibly: user and groups, capabilities, and `no_new_privs`.

Source: setresuid(2), setgroups(2), capabilities(7), capget(2), prctl(2). Capabilities and `no_new_privs` belong to a
thread. Existing threads keep their capabilities, which is reported; the seccomp filter sets `no_new_privs` on them.
"""

from __future__ import annotations

import errno
import os
import struct
from _thread import get_native_id  # importing `threading` takes longer than dropping all capabilities
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_GET_NO_NEW_PRIVS,
    PR_SET_NO_NEW_PRIVS,
    prctl,
    syscall,
)
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

_HEADER = struct.pack("=Ii", 0x2008_0522, 0)  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits per set
CAP_SETPCAP = 8
CAP_SYS_RESOURCE = 24


class LinuxPrivileges(NamedTuple):
    """The layer that changes user and groups."""

    name: str = "privileges"

    def probe(self) -> LayerReport:
        """Whether the process may change its user."""
        if os.geteuid() == 0:
            return LayerReport(self.name, LayerState.ACTIVE, "can become another user")
        return LayerReport(self.name, LayerState.UNAVAILABLE, f"runs as uid {os.geteuid()}", "root, or CAP_SETUID")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop supplementary groups, then the group, then the user: afterwards the others couldn't be changed."""
        target = wanted.run_as
        if target is None:
            return LayerReport(self.name, LayerState.DISABLED, f"stays uid {os.geteuid()}, as requested")
        ids = (target.uid,) * 3
        groups = (target.gid,) * 3
        if os.getresuid() != ids or os.getresgid() != groups or os.getgroups():
            os.setgroups([])
            os.setresgid(*groups)
            os.setresuid(*ids)
        if os.getresuid() != ids or os.getresgid() != groups or os.getgroups():
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the kernel kept another user or group")
        return LayerReport(self.name, LayerState.ACTIVE, f"uid {target.uid}, gid {target.gid}, no other groups")


def capability_sets() -> tuple[int, int, int]:
    """Effective, permitted and inheritable set of the calling thread, as bit masks."""
    data = bytearray(24)
    syscall("capget", _HEADER, data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread; raises `OSError(EPERM)` for a capability that it doesn't have."""
    words = (effective, permitted, inheritable)
    low = tuple(word & 0xFFFF_FFFF for word in words)
    high = tuple(word >> 32 for word in words)
    syscall("capset", _HEADER, struct.pack("=6I", *low, *high))


class Capabilities(NamedTuple):
    """The layer that drops capabilities."""

    name: str = "capabilities"

    def probe(self) -> LayerReport:
        """Read the current sets."""
        effective, permitted, _ = capability_sets()
        facts = (("effective", f"{effective:#x}"), ("permitted", f"{permitted:#x}"))
        reason = "can be dropped" if permitted else "there are none to drop"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts)

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop all of them, or only `CAP_SYS_RESOURCE` if the others may stay."""
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
    """Drop all but `kept` from the bounding set. Needs CAP_SETPCAP; without it, `no_new_privs` has the same effect."""
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
            continue  # it has ended
        found[int(thread)] = (_set_in(text, b"\nCapPrm:"), _set_in(text, b"\nCapBnd:"))
    return found


def _set_in(status: bytes, name: bytes) -> int:
    return int(status.partition(name)[2].split(None, 1)[0], 16)


class NoNewPrivs(NamedTuple):
    """The layer that sets `no_new_privs`: nothing this process executes gains privileges. Since Linux 3.5."""

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
