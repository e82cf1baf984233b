"""Unveils the paths, locks the view, then pledges. What is unveiled and promised is decided in `promises`.

Source: unveil(2) and pledge(2) of OpenBSD 7.7. The first unveil hides the rest of the file system, and
nothing gives it back. A process that has unveiled and cannot pledge is neither what it was nor confined: it
must not start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nyx_core.openbsd.promises import promises, shortfalls, unveils
from nyx_core.sandbox.errors import SandboxError
from nyx_core.sandbox.report import LayerReport, LayerState, SandboxReport

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
class Calls:
    """pledge(2) and unveil(2) of one C library, bound to their signatures. Raises `OSError` with what errno
    means.
    """

    libc: Any

    def __post_init__(self) -> None:
        for name in ("pledge", "unveil"):
            function = getattr(self.libc, name)
            function.restype = ctypes.c_int
            function.argtypes = [TEXT, TEXT]

    def unveil(self, path: str, permissions: str) -> None:
        """Make `path`, and what is below it, visible with `permissions`."""
        answer = self.libc.unveil(os.fsencode(path), permissions.encode("ascii"))
        _check(answer, f"unveil({path!r}, {permissions!r})", UNVEIL_ERRORS)

    def lock(self) -> None:
        """Let nobody unveil anything more."""
        _check(self.libc.unveil(None, None), "unveil(NULL, NULL)", UNVEIL_ERRORS)

    def pledge(self, promised: str) -> None:
        """Give up whatever is not promised. What a program that is executed may do is left as it is."""
        _check(self.libc.pledge(promised.encode("ascii"), None), f"pledge({promised!r})", PLEDGE_ERRORS)


def _check(answer: int, call: str, meanings: dict[int, str]) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        name = errno.errorcode.get(number, str(number))
        raise OSError(number, f"{call}: {name}, {meanings.get(number, os.strerror(number))}")


@dataclass(frozen=True, slots=True)
class Pledge:
    """The layer: both calls, for between them there is no way back and no place to stop.

    Attributes:
        python_paths: where the interpreter reads its own files.
        open_libc: opens the library whose calls are made; it may raise `OSError` or lack them.
    """

    python_paths: Callable[[], tuple[str, ...]]
    open_libc: Callable[[], Any] = system_libc
    name: str = "pledge"

    def probe(self) -> LayerReport:
        """Look for the two functions."""
        try:
            Calls(self.open_libc())
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        return LayerReport(self.name, LayerState.ACTIVE, "pledge and unveil are there")

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Unveil, lock, pledge. Raises `SandboxError` when the view is already closed and the rest fails."""
        try:
            calls = Calls(self.open_libc())
        except (OSError, AttributeError) as error:
            return self._unavailable(error)
        view, promised = unveils(wanted, self.python_paths()), promises(wanted)
        done = 0
        try:
            for path, permissions in view:
                calls.unveil(path, permissions)
                done += 1
            if view:
                calls.lock()
            calls.pledge(promised)
        except OSError as error:
            if done:
                raise self._half_way(wanted, before, f"{done} of {len(view)} paths", error) from error
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

    def _half_way(
        self, wanted: Confinement, before: tuple[LayerReport, ...], unveiled: str, error: OSError
    ) -> SandboxError:
        """No `may_degrade` covers this: the view is closed, so the process is not as it was, and not
        confined.
        """
        reason = f"{unveiled} are unveiled for good, but {error.strerror}"
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
