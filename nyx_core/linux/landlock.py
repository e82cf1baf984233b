"""Applies Landlock: paths, TCP ports and scopes. `landlock_rules` decides on the ruleset.

Source: landlock(7). The domain covers the calling thread and what it starts; ABI 8 can cover every thread.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.landlock_rules import (
    FILE_RIGHTS,
    NEWEST_ABI,
    LandlockPathRule,
    LandlockRuleset,
    ruleset_for,
    uncovered,
)
from nyx_core.linux.libc import syscall
from nyx_core.linux.procfs import thread_count
from nyx_core.posix.process import python_paths
from nyx_core.sandbox.report import LayerReport, LayerState, errno_name

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
ERRATA = 2  # LANDLOCK_CREATE_RULESET_ERRATA
RULE_PATH_BENEATH = 1
RULE_NET_PORT = 2
RESTRICT_SELF_TSYNC = 1 << 3
TSYNC_SINCE = 8

REMEDIES = {
    errno.ENOSYS: "a kernel with CONFIG_SECURITY_LANDLOCK (Linux 5.13), and no outer seccomp filter that hides it",
    errno.EOPNOTSUPP: "the boot parameter lsm=landlock,... (CONFIG_LSM)",
    errno.EPERM: "an outer seccomp filter that allows the landlock calls",
}


def abi() -> int:
    """Landlock ABI of the running kernel; raises `OSError`: ENOSYS not built in, EOPNOTSUPP not booted."""
    return syscall("landlock_create_ruleset", None, 0, VERSION)


def errata() -> int | None:
    """Bits of the errata fixed in the running kernel, or `None` if it can't tell (before Linux 6.15)."""
    try:
        return syscall("landlock_create_ruleset", None, 0, ERRATA)
    except OSError:
        return None


class PreparedRuleset:
    """A ruleset that already has the rules on the interpreter's paths, as they were when it was made.

    It holds a descriptor, until `take` or `close` is called.
    """

    def __init__(self, wanted: Confinement, newest: int = NEWEST_ABI) -> None:
        """Raises `OSError` if there is no Landlock."""
        self.python_paths = python_paths()
        self._abi = min(abi(), newest)
        ruleset = ruleset_for(wanted, self._abi, self.python_paths)
        self._ruleset = ruleset._replace(paths=tuple(rule for rule in ruleset.paths if not rule.required))
        self._descriptor: int | None = None
        if not ruleset.empty:
            self._descriptor = _create(ruleset, self._abi)
            _add_paths(self._descriptor, self._ruleset.paths)

    def held(self) -> frozenset[int]:
        """The descriptor, until it's taken or closed."""
        return frozenset() if self._descriptor is None else frozenset({self._descriptor})

    def take(self, wanted: LandlockRuleset, used_abi: int) -> tuple[int, int] | None:
        """The descriptor, and how many of the last paths of `wanted` it already has.

        If it can't be extended to `wanted`, closes it and returns `None`.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return None
        count = len(self._ruleset.paths)
        same = wanted[:3] == self._ruleset[:3] and wanted.paths[len(wanted.paths) - count :] == self._ruleset.paths
        if same and used_abi == self._abi:
            return descriptor, count
        os.close(descriptor)
        return None

    def close(self) -> None:
        """Closes the descriptor unless it was taken."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Landlock(NamedTuple):
    """The layer.

    `newest` is the highest ABI to use, for a kernel that is newer or should look older. `prepared` was made ahead.
    """

    newest: int = NEWEST_ABI
    name: str = "landlock"
    prepared: PreparedRuleset | None = None

    def probe(self) -> LayerReport:
        """Ask for the ABI."""
        try:
            found = abi()
        except OSError as error:
            return self._absent(error)
        return LayerReport(self.name, LayerState.ACTIVE, f"ABI {found}", facts=(("abi", str(found)),))

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Enter a domain for `wanted`."""
        try:
            return self._apply(wanted)
        finally:
            if self.prepared is not None:
                self.prepared.close()

    def _apply(self, wanted: Confinement) -> LayerReport:
        if ruleset_for(wanted, NEWEST_ABI).empty:
            return LayerReport(self.name, LayerState.DISABLED, "nothing that Landlock mediates is restricted")
        try:
            found = abi()
        except OSError as error:
            return self._stand_in(wanted, self._absent(error))
        used = min(found, self.newest)
        every_thread = _may_have_threads()
        if every_thread and used < TSYNC_SINCE:
            return self._stand_in(wanted, self._threads(used))
        paths = python_paths() if self.prepared is None else self.prepared.python_paths
        ruleset = ruleset_for(wanted, used, paths)
        enter_domain(ruleset, used, RESTRICT_SELF_TSYNC if every_thread else 0, self.prepared)
        return self._entered(wanted, ruleset, used)

    def _entered(self, wanted: Confinement, ruleset: LandlockRuleset, used: int) -> LayerReport:
        gaps = uncovered(wanted, used)
        facts = (
            ("abi", str(used)),
            ("enforced_abi", str(used)),
            ("handled", f"fs {ruleset.filesystem:#x}, net {ruleset.network:#x}, scopes {ruleset.scoped:#x}"),
            ("paths", str(len(ruleset.paths))),
            ("masked", ", ".join(ruleset.masked) or "none"),
        )
        if gaps:
            reason = f"ABI {used} cannot enforce: {', '.join(gaps)}"
            return LayerReport(self.name, LayerState.DEGRADED, reason, "a newer kernel", facts=facts)
        if "truncate" in ruleset.masked:
            reason = f"ABI {used} cannot mediate truncation; seccomp refuses truncate and O_TRUNC instead"
            return LayerReport(self.name, LayerState.DEGRADED, reason, "Linux 6.2 (ABI 3)", "seccomp", facts)
        return LayerReport(self.name, LayerState.ACTIVE, f"domain entered, ABI {used}", facts=facts)

    def _absent(self, error: OSError) -> LayerReport:
        remedy = REMEDIES.get(error.errno or 0, "")
        return LayerReport(self.name, LayerState.UNAVAILABLE, f"no Landlock: {errno_name(error.errno)}", remedy)

    def _threads(self, used: int) -> LayerReport:
        reason = f"threads exist already, or cannot be counted, and ABI {used} covers the calling one only"
        remedy = "confine before any thread starts, or Linux 7.0 (ABI 8)"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, remedy)

    def _stand_in(self, wanted: Confinement, report: LayerReport) -> LayerReport:
        gaps = uncovered(wanted, 0)
        if gaps:
            reason = f"{report.reason}; nothing else can enforce: {', '.join(gaps)}"
            return LayerReport(self.name, report.state, reason, report.remedy)
        reason = f"{report.reason}; seccomp refuses every open for writing instead"
        return LayerReport(self.name, LayerState.DEGRADED, reason, report.remedy, "seccomp")


def _may_have_threads() -> bool:
    try:
        return thread_count() > 1
    except OSError:
        return True  # unknown without /proc, and an uncovered thread would be a hole


def enter_domain(ruleset: LandlockRuleset, used_abi: int, flags: int, prepared: PreparedRuleset | None = None) -> None:
    """Restrict this process to `ruleset` irreversibly; raises `OSError`. `flags`: see landlock_restrict_self(2)."""
    taken = None if prepared is None else prepared.take(ruleset, used_abi)
    descriptor, done = (_create(ruleset, used_abi), 0) if taken is None else taken
    try:
        _add_paths(descriptor, ruleset.paths[: len(ruleset.paths) - done])
        for port, rights in ruleset.ports:
            syscall("landlock_add_rule", descriptor, RULE_NET_PORT, struct.pack("=QQ", rights, port), 0)
        syscall("landlock_restrict_self", descriptor, flags)
    finally:
        os.close(descriptor)


def _create(ruleset: LandlockRuleset, used_abi: int) -> int:
    attributes = struct.pack("=QQQ", ruleset.filesystem, ruleset.network, ruleset.scoped)
    # Trailing fields that the kernel lacks are E2BIG unless zero; they were added with ABI 4 and 6.
    size = 8 if used_abi < 4 else 16 if used_abi < 6 else 24
    return syscall("landlock_create_ruleset", attributes[:size], size, 0)  # the kernel sets close-on-exec


def _add_paths(ruleset: int, rules: tuple[LandlockPathRule, ...]) -> None:
    for rule in rules:
        try:
            path = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if not rule.required and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                continue
            raise
        try:
            rights = rule.rights if stat.S_ISDIR(os.fstat(path).st_mode) else rule.rights & FILE_RIGHTS
            if rights:
                syscall("landlock_add_rule", ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", rights, path), 0)
        finally:
            os.close(path)
