"""Applies Landlock: paths, TCP ports and scopes. What is asked for is decided in `landlock_rules`.

Source: landlock(7). The domain covers the calling thread and what it starts; ABI 8 can cover every thread.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.landlock_rules import FILE_RIGHTS, NEWEST_ABI, PathRule, Ruleset, ruleset_for, uncovered
from nyx_core.linux.libc import syscall
from nyx_core.linux.runtime_paths import runtime_paths
from nyx_core.linux.threads import thread_count
from nyx_core.sandbox.report import LayerReport, LayerState

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
    """Bits of the corrections that the running kernel has, or `None` where it cannot tell (before Linux 6.15)."""
    try:
        return syscall("landlock_create_ruleset", None, 0, ERRATA)
    except OSError:
        return None


class Begun:
    """A ruleset with the interpreter's paths in it, to which the others are added when they are known.

    The paths are those that existed when it was begun. Holds a descriptor, which is handed out once.
    """

    def __init__(self, wanted: Confinement, newest: int = NEWEST_ABI) -> None:
        """Raises `OSError` where there is no Landlock."""
        self.resolving = _resolves_names(wanted)
        self.runtime = runtime_paths(network=self.resolving)
        self._abi = min(abi(), newest)
        ruleset = ruleset_for(wanted, self._abi, self.runtime)
        self._ruleset = ruleset._replace(paths=tuple(rule for rule in ruleset.paths if not rule.required))
        self._handle: int | None = None
        if not ruleset.empty:
            self._handle = _create(ruleset, self._abi)
            _add_paths(self._handle, self._ruleset.paths)

    def held(self) -> frozenset[int]:
        """The descriptor, while it is not handed out."""
        return frozenset() if self._handle is None else frozenset({self._handle})

    def hand_out(self, wanted: Ruleset, used: int) -> tuple[int, int] | None:
        """The descriptor, and how many of the last paths of `wanted` are in it; `None`, and nothing is held any more,
        where what was begun is no part of `wanted`.
        """
        handle, self._handle = self._handle, None
        if handle is None:
            return None
        count = len(self._ruleset.paths)
        same = wanted[:3] == self._ruleset[:3] and wanted.paths[len(wanted.paths) - count :] == self._ruleset.paths
        if same and used == self._abi:
            return handle, count
        os.close(handle)
        return None

    def drop(self) -> None:
        """Closes what was not handed out."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class Landlock(NamedTuple):
    """The layer.

    `newest` is the highest ABI to use, for a kernel that is newer or is to look older; `begun` was done ahead.
    """

    newest: int = NEWEST_ABI
    name: str = "landlock"
    begun: Begun | None = None

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
            if self.begun is not None:
                self.begun.drop()

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
        ahead = self.begun if self.begun is not None and self.begun.resolving == _resolves_names(wanted) else None
        paths = runtime_paths(network=_resolves_names(wanted)) if ahead is None else ahead.runtime
        ruleset = ruleset_for(wanted, used, paths)
        _enter(ruleset, used, RESTRICT_SELF_TSYNC if every_thread else 0, ahead)
        return self._entered(wanted, ruleset, used)

    def _entered(self, wanted: Confinement, ruleset: Ruleset, used: int) -> LayerReport:
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
        number = error.errno or 0
        reason = f"no Landlock: {errno.errorcode.get(number, str(number))}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDIES.get(number, ""))

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
        return True  # without /proc nobody knows, and a thread left out would be a hole


def _resolves_names(wanted: Confinement) -> bool:
    return wanted.network.sockets != "none"


def _enter(ruleset: Ruleset, used: int, flags: int, begun: Begun | None = None) -> None:
    ahead = None if begun is None else begun.hand_out(ruleset, used)
    handle, done = (_create(ruleset, used), 0) if ahead is None else ahead
    try:
        _add_paths(handle, ruleset.paths[: len(ruleset.paths) - done])
        for port, rights in ruleset.ports:
            syscall("landlock_add_rule", handle, RULE_NET_PORT, struct.pack("=QQ", rights, port), 0)
        syscall("landlock_restrict_self", handle, flags)
    finally:
        os.close(handle)


def _create(ruleset: Ruleset, used: int) -> int:
    attributes = struct.pack("=QQQ", ruleset.filesystem, ruleset.network, ruleset.scoped)
    # Trailing fields that the kernel does not have are E2BIG unless zero, and fields are missing before ABI 4 and 6.
    size = 8 if used < 4 else 16 if used < 6 else 24
    return syscall("landlock_create_ruleset", attributes[:size], size, 0)  # close-on-exec, as the kernel makes it


def _add_paths(handle: int, rules: tuple[PathRule, ...]) -> None:
    for rule in rules:
        _add_path(handle, rule.path, rule.rights, required=rule.required)


def _add_path(handle: int, path: str, rights: int, *, required: bool) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if not required and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= FILE_RIGHTS
        if rights:
            syscall("landlock_add_rule", handle, RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
