"""The one door to kernel32: the calls around Job Objects, each checked. Knows no policy and no confinement.

Source: learn.microsoft.com, jobapi2.h, psapi.h, handleapi.h and processthreadsapi.h. The integer types have
fixed widths: `ctypes.wintypes.DWORD` is as wide as the C `long`, which is 8 bytes on 64-bit POSIX systems.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BOOL = ctypes.c_int32
DWORD = ctypes.c_uint32
ENUM = ctypes.c_int32
HANDLE = ctypes.c_void_p
POINTER = ctypes.c_void_p

SIGNATURES: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("GetCurrentProcess", HANDLE, ()),
    ("CreateJobObjectW", HANDLE, (POINTER, ctypes.c_wchar_p)),
    ("SetInformationJobObject", BOOL, (HANDLE, ENUM, POINTER, DWORD)),
    ("QueryInformationJobObject", BOOL, (HANDLE, ENUM, POINTER, DWORD, POINTER)),
    ("AssignProcessToJobObject", BOOL, (HANDLE, HANDLE)),
    ("IsProcessInJob", BOOL, (HANDLE, HANDLE, POINTER)),
    ("K32GetProcessMemoryInfo", BOOL, (HANDLE, POINTER, DWORD)),
    ("CloseHandle", BOOL, (HANDLE,)),
)
"""Name, result and arguments of every function that is called."""

ACCESS_DENIED = 5
MEANINGS = {
    1: "ERROR_INVALID_FUNCTION: this system does not know the request",
    ACCESS_DENIED: "ERROR_ACCESS_DENIED: the process is in a job that admits no other, or a right is missing",
    6: "ERROR_INVALID_HANDLE: not a handle of this process",
    8: "ERROR_NOT_ENOUGH_MEMORY: no memory for the object",
    24: "ERROR_BAD_LENGTH: the structure does not have the size that this system expects",
    50: "ERROR_NOT_SUPPORTED: this system does not support the request",
    87: "ERROR_INVALID_PARAMETER: a limit or flag that this system does not accept",
    1314: "ERROR_PRIVILEGE_NOT_HELD: a privilege is missing",
    1816: "ERROR_NOT_ENOUGH_QUOTA: a limit of the job is used up",
}
"""What the errors of these calls mean here. Source: learn.microsoft.com, system error codes."""


class Win32Error(OSError):
    """A call of the Windows API failed. `call` is its name, `code` what `GetLastError` said."""

    def __init__(self, call: str, code: int) -> None:
        self.call = call
        self.code = code
        meaning = MEANINGS.get(code, "see the system error codes of Windows")
        super().__init__(f"{call}: error {code}, {meaning}")


@dataclass(frozen=True, slots=True)
class Kernel32:
    """The functions of one kernel32, bound to their signatures.

    Attributes:
        library: has the functions of `SIGNATURES` as attributes.
        last_error: what `GetLastError` said after the latest call of this thread.
        word: bytes of a pointer and of `SIZE_T`.
    """

    library: Any
    last_error: Callable[[], int]
    word: int = ctypes.sizeof(ctypes.c_void_p)

    def __post_init__(self) -> None:
        for name, result, arguments in SIGNATURES:
            function = getattr(self.library, name)
            function.restype = result
            function.argtypes = list(arguments)

    def current_process(self) -> int | None:
        """The pseudo handle of this process, which needs no closing."""
        handle: int | None = self.library.GetCurrentProcess()
        return handle

    def create_job(self) -> int:
        """A new job without a name, so that nobody else can open it, and with a handle that no child
        inherits.
        """
        handle: int | None = self.library.CreateJobObjectW(None, None)
        if not handle:
            raise Win32Error("CreateJobObjectW", self.last_error())
        return handle

    def set_information(self, job: int, kind: int, record: bytes) -> None:
        """Give `job` a record of class `kind`."""
        buffer = ctypes.create_string_buffer(record, len(record))
        answer = self.library.SetInformationJobObject(job, kind, ctypes.addressof(buffer), len(record))
        self._check("SetInformationJobObject", answer)

    def query_information(self, job: int | None, kind: int, size: int) -> bytes:
        """The record of class `kind`, of `job` or, for `None`, of the innermost job of this process."""
        buffer = ctypes.create_string_buffer(size)
        answer = self.library.QueryInformationJobObject(job, kind, ctypes.addressof(buffer), size, None)
        self._check("QueryInformationJobObject", answer)
        return buffer.raw

    def assign(self, job: int) -> None:
        """Put this process into `job`. It cannot leave any more."""
        answer = self.library.AssignProcessToJobObject(job, self.current_process())
        self._check("AssignProcessToJobObject", answer)

    def in_job(self, job: int | None) -> bool:
        """Whether this process is in `job` or, for `None`, in any."""
        found = BOOL(0)
        answer = self.library.IsProcessInJob(self.current_process(), job, ctypes.addressof(found))
        self._check("IsProcessInJob", answer)
        return bool(found.value)

    def memory_information(self, record: bytearray) -> bytes:
        """Fill `record`, a `PROCESS_MEMORY_COUNTERS` or its `_EX` that carries its size, for this process."""
        buffer = ctypes.create_string_buffer(bytes(record), len(record))
        answer = self.library.K32GetProcessMemoryInfo(self.current_process(), ctypes.addressof(buffer), len(record))
        self._check("K32GetProcessMemoryInfo", answer)
        return buffer.raw

    def close(self, handle: int) -> None:
        """Close `handle`."""
        self._check("CloseHandle", self.library.CloseHandle(handle))

    def _check(self, call: str, answer: int) -> None:
        if not answer:
            raise Win32Error(call, self.last_error())


def system_kernel() -> Kernel32:
    """The kernel32 of this system; raises `OSError` where there is none."""
    if sys.platform == "win32":
        return Kernel32(ctypes.WinDLL("kernel32", use_last_error=True), ctypes.get_last_error)
    raise OSError("kernel32 exists on Windows only")
