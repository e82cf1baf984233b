"""Unveils paths, locks the view of the file system, then pledges. `promises` decides on the arguments.

Source: unveil(2) and pledge(2) of OpenBSD 7.7. The first unveil hides the rest of the file system irreversibly. A
process that has unveiled and can't pledge is only partly confined and must not run a plugin.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nyx_core.openbsd.promises import promises, shortfalls, unveils
from nyx_core.sandbox.report import LayerReport, LayerState, SandboxError, SandboxReport, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement

TEXT = ctypes.c_char_p
PLEDGE_ERRORS = {
    errno.EPERM: "more is promised than an earlier pledge left",
    errno.EINVAL: "a promise that this release does not know",
    errno.EFAULT: "a promise that cannot be read",
    errno.ENOSYS: "this kernel has no pledge",
}
UNVEIL_ERRORS = {
    errno.EPERM: "the view is locked, the path is not accessible, or it would gain permissions",
    errno.ENOENT: "a directory of the path does not exist",
    errno.E2BIG: "too many paths are unveiled",
    errno.EINVAL: "a permission that this release does not know",
    errno.ENOSYS: "this kernel has no unveil, or an earlier pledge forbids it",
}


def system_libc() -> Any:
    """The C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class PledgeLibrary:
    """pledge(2) and unveil(2), bound to their signatures. Raises `OSError` with the meaning of errno."""

    libc: Any

    def __post_init__(self) -> None:
        for name in ("pledge", "unveil"):
            function = getattr(self.libc, name)
            function.restype = ctypes.c_int
            function.argtypes = [TEXT, TEXT]

    def unveil(self, path: str, permissions: str) -> None:
        """Make `path` and everything below visible with `permissions`."""
        answer = self.libc.unveil(os.fsencode(path), permissions.encode("ascii"))
        _check(answer, f"unveil({path!r}, {permissions!r})", UNVEIL_ERRORS)

    def lock(self) -> None:
        """Refuse every further unveil."""
        _check(self.libc.unveil(None, None), "unveil(NULL, NULL)", UNVEIL_ERRORS)

    def pledge(self, promised: str) -> None:
        """Give up everything that isn't promised. Doesn't restrict programs that are executed."""
        _check(self.libc.pledge(promised.encode("ascii"), None), f"pledge({promised!r})", PLEDGE_ERRORS)


def _check(answer: int, call: str, meanings: dict[int, str]) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {errno_name(number)}, {meanings.get(number, os.strerror(number))}")


@dataclass(frozen=True, slots=True)
class Pledge:
    """The layer. It makes both calls, because unveiling can't be undone.

    Attributes:
        python_paths: the paths of the interpreter's own files.
        open_libc: opens the library to call; it may raise `OSError` or lack the functions.
    """

    python_paths: Callable[[], tuple[str, ...]]
    open_libc: Callable[[], Any] = system_libc
    name: str = "pledge"

    def probe(self) -> LayerReport:
        """Look for the two functions."""
        try:
            PledgeLibrary(self.open_libc())
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        return LayerReport(self.name, LayerState.ACTIVE, "pledge and unveil are available")

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Unveil, lock, pledge. Raises `SandboxError` if paths were unveiled and the rest fails."""
        try:
            library = PledgeLibrary(self.open_libc())
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        view, promised = unveils(wanted, self.python_paths()), promises(wanted)
        done = 0
        try:
            for path, permissions in view:
                library.unveil(path, permissions)
                done += 1
            if view:
                library.lock()
            library.pledge(promised)
        except OSError as error:
            if done:
                raise self._partly_confined(wanted, before, f"{done} of {len(view)} paths", error) from error
            return self._unavailable(error)
        return self._applied(wanted, promised, view)

    def _applied(self, wanted: Confinement, promised: str, view: tuple[tuple[str, str], ...]) -> LayerReport:
        facts = (
            ("promises", promised),
            ("unveiled", " ".join(f"{path}:{letters}" for path, letters in view)),
        )
        missing = shortfalls(wanted)
        if missing:
            return LayerReport(self.name, LayerState.DEGRADED, "; ".join(missing), facts=facts)
        reason = f"pledged, {len(view)} paths unveiled and locked" if view else "pledged, every path visible"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=facts)

    def _partly_confined(
        self, wanted: Confinement, before: tuple[LayerReport, ...], unveiled: str, error: OSError
    ) -> SandboxError:
        """The error for a process that unveiled and didn't pledge. `may_degrade` doesn't cover it."""
        reason = f"{unveiled} are unveiled irreversibly, but {error.strerror}"
        own = LayerReport(self.name, LayerState.UNAVAILABLE, reason, "a new process")
        system = os.uname()
        report = SandboxReport(
            sys.platform,
            system.release,
            system.machine,
            policy_hash=wanted.digest(),
            layers=(*before, own),
        )
        return SandboxError(f"layer {self.name}: {reason}: end this process", report=report, layer=self.name)

    def _unavailable(self, error: OSError | AttributeError) -> LayerReport:
        reason = f"nothing was applied: {getattr(error, 'strerror', None) or error}"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, "OpenBSD 6.4 or newer")
