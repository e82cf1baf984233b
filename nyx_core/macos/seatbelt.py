"""Applies a seatbelt profile to this process. `profile` decides its rules.

Source: <sandbox.h> and sandbox_init(3), deprecated since macOS 10.8 but used by browsers. A profile as text needs
flags 0, which the header doesn't name. A process can enter one sandbox only: a second profile is refused with EPERM, so
a confinement can't be tightened later.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nyx_core.macos.profile import profile
from nyx_core.sandbox.report import LayerReport, LayerState, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement

PROFILE_TEXT = 0
MEANINGS = {
    errno.EPERM: "the process is in a sandbox already, and may enter one only",
    errno.EINVAL: "the profile has a rule that this release does not know",
    errno.ENOMEM: "no memory for the compiled profile",
}


def system_library() -> Any:
    """The libraries that this process has loaded. On macOS, libSystem has `sandbox_init`."""
    return ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class SeatbeltLibrary:
    """The functions of <sandbox.h>, bound to their signatures."""

    library: Any

    def __post_init__(self) -> None:
        init = self.library.sandbox_init
        init.restype, init.argtypes = ctypes.c_int, [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p]
        free = self.library.sandbox_free_error
        free.restype, free.argtypes = None, [ctypes.c_void_p]
        # Variadic after the third parameter; the calls here pass nothing more.
        check = self.library.sandbox_check
        check.restype, check.argtypes = ctypes.c_int, [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]

    def enter(self, text: str) -> None:
        """Enter the sandbox of a profile. Raises `OSError` with the meaning of errno and the compiler's message."""
        message = ctypes.c_void_p()
        answer = self.library.sandbox_init(os.fsencode(text), PROFILE_TEXT, ctypes.addressof(message))
        number = ctypes.get_errno()
        said = ""
        if message.value:
            said = ctypes.string_at(message.value).decode("utf-8", "replace").strip()
            self.library.sandbox_free_error(message.value)
        if answer != 0:
            meaning = MEANINGS.get(number, os.strerror(number))
            raise OSError(number, "; ".join(filter(None, (f"sandbox_init: {errno_name(number)}, {meaning}", said))))

    def sandboxed(self) -> bool:
        """Whether this process is in a sandbox."""
        answer: int = self.library.sandbox_check(os.getpid(), None, 0)
        return answer == 1


@dataclass(frozen=True, slots=True)
class Seatbelt:
    """The layer.

    Attributes:
        python_paths: the paths of the interpreter's own files.
        open_library: opens the library to call.
    """

    python_paths: Callable[[], tuple[str, ...]]
    open_library: Callable[[], Any] = system_library
    name: str = "seatbelt"

    def probe(self) -> LayerReport:
        """Whether the functions exist, and whether a sandbox can still be entered."""
        try:
            inside = SeatbeltLibrary(self.open_library()).sandboxed()
        except (OSError, AttributeError) as error:
            return self._unavailable(f"no seatbelt: {error}")
        if inside:
            return self._unavailable(f"sandbox_init: {MEANINGS[errno.EPERM]}")
        return LayerReport(self.name, LayerState.ACTIVE, "sandbox_init is available")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Enter the sandbox of `wanted`, then ask the kernel whether this process is in one."""
        if not wanted.closed:
            return LayerReport(self.name, LayerState.DISABLED, "nothing that seatbelt mediates is restricted")
        try:
            text = profile(canonical(wanted), tuple(map(os.path.realpath, self.python_paths())))
            library = SeatbeltLibrary(self.open_library())
            library.enter(text)
            inside = library.sandboxed()
        except (OSError, AttributeError, ValueError) as error:
            return self._unavailable(str(getattr(error, "strerror", None) or error))
        if not inside:
            return self._unavailable("sandbox_init returned 0, but the process is not in a sandbox")
        facts = (("rules", str(text.count("\n"))), ("profile", text))
        if not wanted.native_code:
            reason = "in a sandbox, but seatbelt does not mediate executable memory without a file"
            return LayerReport(self.name, LayerState.DEGRADED, reason, facts=facts)
        return LayerReport(self.name, LayerState.ACTIVE, "in a sandbox", facts=facts)

    def _unavailable(self, reason: str) -> LayerReport:
        remedy = "macOS with sandbox_init, and a process that is not in a sandbox yet"
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, remedy)


def canonical(wanted: Confinement) -> Confinement:
    """`wanted` with links in every path resolved."""
    return replace(
        wanted,
        readable=tuple(map(os.path.realpath, wanted.readable)),
        writable=tuple(map(os.path.realpath, wanted.writable)),
        executable=tuple(map(os.path.realpath, wanted.executable)),
    )
