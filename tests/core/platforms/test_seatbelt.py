"""Applying a profile: the calls of <sandbox.h>, their order, and each way they can fail."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import replace

import pytest

from nyx_core.macos.profile import profile
from nyx_core.macos.seatbelt import MEANINGS, Seatbelt, canonical, system_library
from nyx_core.sandbox.confinement import Confinement, Network, SandboxPolicy, confinement_for
from nyx_core.sandbox.platform import current_platform
from nyx_core.sandbox.report import LayerState
from tests.core.platforms.recorded_library import RecordedLibrary

STRICT = confinement_for(SandboxPolicy.STRICT)


class FakeSeatbelt:
    """One process: `error` is the errno of the next `sandbox_init`, `says` its message; `enters` whether it works."""

    def __init__(self, *, error: int = 0, says: bytes = b"", enters: bool = True) -> None:
        self.inside = False
        self.freed: list[int] = []
        self.message = ctypes.create_string_buffer(says) if says else None
        self.error = error
        self.enters = enters
        self.library = RecordedLibrary(
            sandbox_init=self._init,
            sandbox_free_error=lambda address: self.freed.append(address),
            sandbox_check=lambda pid, operation, kind: int(self.inside),
        )

    def _init(self, text: bytes, flags: int, message: int) -> int:
        if self.message is not None:
            ctypes.c_void_p.from_address(message).value = ctypes.addressof(self.message)
        if self.error:
            ctypes.set_errno(self.error)
            return -1
        self.inside = self.enters
        return 0

    def layer(self) -> Seatbelt:
        """The layer with this process, and an interpreter with one path."""
        return Seatbelt(lambda: ("/opt/python",), lambda: self.library)


def test_the_profile_is_entered_and_then_asked_for() -> None:
    """One `sandbox_init` with the text and no flags, then `sandbox_check` on this process."""
    system = FakeSeatbelt()
    report = system.layer().apply(STRICT, ())
    assert report.state is LayerState.ACTIVE, report.reason
    (name, text, flags, message), check = system.library.calls
    assert (name, text, flags) == ("sandbox_init", profile(STRICT, ("/opt/python",)).encode(), 0)
    assert message
    assert check == ("sandbox_check", os.getpid(), None, 0)
    assert not system.freed


def test_signatures_are_those_of_the_header() -> None:
    """Flags have 64 bits, the message is a pointer to a pointer, and freeing returns nothing."""
    system = FakeSeatbelt()
    system.layer().apply(STRICT, ())
    init, free = system.library.functions["sandbox_init"], system.library.functions["sandbox_free_error"]
    assert init.restype is ctypes.c_int
    assert init.argtypes == [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p]
    assert (free.restype, free.argtypes) == (None, [ctypes.c_void_p])


@pytest.mark.parametrize("number", sorted(MEANINGS))
def test_a_refused_profile_is_unavailable_with_errno_and_message(number: int) -> None:
    """The reason has errno, its meaning and the compiler's message, which is freed once."""
    system = FakeSeatbelt(error=number, says=b"line 3: unbound variable: lsopen")
    report = system.layer().apply(STRICT, ())
    assert report.state is LayerState.UNAVAILABLE
    assert f"{errno.errorcode[number]}, {MEANINGS[number]}; line 3: unbound variable: lsopen" in report.reason
    assert system.message is not None
    assert system.freed == [ctypes.addressof(system.message)]


def test_a_success_that_confines_nothing_is_a_failure() -> None:
    """If `sandbox_init` returns 0, the kernel must confirm that the process is in a sandbox."""
    report = FakeSeatbelt(enters=False).layer().apply(STRICT, ())
    assert report.state is LayerState.UNAVAILABLE
    assert "is not in a sandbox" in report.reason


def test_a_process_in_a_sandbox_can_enter_no_other() -> None:
    """A survey reports that the process is in a sandbox already."""
    system = FakeSeatbelt()
    assert system.layer().probe().state is LayerState.ACTIVE
    system.inside = True
    assert "already" in system.layer().probe().reason


@pytest.mark.parametrize("missing", ["sandbox_init", "sandbox_free_error", "sandbox_check"])
def test_a_library_without_the_calls_is_unavailable(missing: str) -> None:
    """If one of the functions is missing, none is called."""
    system = FakeSeatbelt()
    del system.library.functions[missing]
    for report in (system.layer().probe(), system.layer().apply(STRICT, ())):
        assert report.state is LayerState.UNAVAILABLE
        assert missing in report.reason
    assert not system.library.calls


def test_nothing_asked_for_enters_nothing() -> None:
    """A confinement that closes no axis doesn't enter a sandbox, which couldn't be left again."""
    system = FakeSeatbelt()
    open_ = Confinement(readable=("/",), writable=("/",), subprocess=True, ipc=True, network=Network.unrestricted())
    assert system.layer().apply(open_, ()).state is LayerState.DISABLED
    assert not system.library.calls


def test_frozen_code_is_not_claimed() -> None:
    """Seatbelt doesn't mediate anonymous executable memory, so `native_code=False` is degraded and says why."""
    report = FakeSeatbelt().layer().apply(replace(STRICT, native_code=False), ())
    assert report.state is LayerState.DEGRADED
    assert not report.holds


def test_a_path_that_no_profile_holds_is_refused_before_any_call() -> None:
    """A control character in a path gives a reason, not a broken profile."""
    system = FakeSeatbelt()
    report = system.layer().apply(replace(STRICT, writable=("/a\nb",)), ())
    assert report.state is LayerState.UNAVAILABLE
    assert "control characters" in report.reason
    assert not system.library.calls


def test_paths_are_given_as_the_kernel_knows_them(tmp_path: os.PathLike[str]) -> None:
    """Rules match canonical paths, so links are resolved first."""
    real = os.path.realpath(tmp_path)
    os.mkdir(f"{real}/target")
    os.symlink("target", f"{real}/link")
    found = canonical(Confinement(readable=(f"{real}/link",), writable=(f"{real}/link/new",)))
    assert found.readable == (f"{real}/target",)
    assert found.writable == (f"{real}/target/new",)


def test_the_libraries_of_this_system_are_really_asked() -> None:
    """Elsewhere no library has `sandbox_init`, and the layer reports that instead of failing open."""
    if hasattr(system_library(), "sandbox_init"):
        pytest.skip("this system has sandbox_init: asking it here would confine the test run")
    assert Seatbelt(tuple).apply(STRICT, ()).state is LayerState.UNAVAILABLE


def test_the_platform_of_macos_enters_the_sandbox_last() -> None:
    """Seatbelt comes after the layers that it could refuse."""
    platform = current_platform("darwin")
    assert platform is not None
    names = [entry.name for entry in platform.layers]
    assert names == ["process", "descriptors", "environment", "privileges", "limits", "seatbelt"]
