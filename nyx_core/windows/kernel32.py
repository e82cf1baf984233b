r"""Typed and checked calls of kernel32: Job Objects for `nyx_core.windows`, files for `nyx_core.beneath`.

Source: learn.microsoft.com, jobapi2.h, psapi.h, fileapi.h, handleapi.h and processthreadsapi.h. The integer types have
fixed widths, because `ctypes.wintypes.DWORD` is a C `long`, which is 8 bytes on 64-bit POSIX systems. The library is an
argument, so that tests can record the calls on other systems.
"""

from __future__ import annotations

import ctypes
import errno
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
TEXT = ctypes.c_wchar_p

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
FILE_READ_ATTRIBUTES = 0x0080
FILE_SHARE_READ = 0x1
FILE_SHARE_WRITE = 0x2
CREATE_NEW = 1
OPEN_EXISTING = 3
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000  # needed to open a directory
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000
FILE_TYPE_DISK = 0x0001

Signatures = tuple[tuple[str, Any, tuple[Any, ...]], ...]
JOB_FUNCTIONS: Signatures = (
    ("CreateJobObjectW", HANDLE, (POINTER, TEXT)),
    ("SetInformationJobObject", BOOL, (HANDLE, ENUM, POINTER, DWORD)),
    ("QueryInformationJobObject", BOOL, (HANDLE, ENUM, POINTER, DWORD, POINTER)),
    ("AssignProcessToJobObject", BOOL, (HANDLE, HANDLE)),
    ("IsProcessInJob", BOOL, (HANDLE, HANDLE, POINTER)),
    ("K32GetProcessMemoryInfo", BOOL, (HANDLE, POINTER, DWORD)),
    ("CloseHandle", BOOL, (HANDLE,)),
)
"""Name, result and arguments of the functions that can fail with a `Win32Error`."""
OTHER_FUNCTIONS: Signatures = (
    ("GetCurrentProcess", HANDLE, ()),
    ("CreateFileW", HANDLE, (TEXT, DWORD, DWORD, POINTER, DWORD, DWORD, HANDLE)),
    ("GetFinalPathNameByHandleW", DWORD, (HANDLE, TEXT, DWORD, DWORD)),
    ("GetFileType", DWORD, (HANDLE,)),
)

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
"""What the errors mean for calls on jobs. Source: learn.microsoft.com, system error codes."""

_INVALID_HANDLE = ctypes.c_void_p(-1).value
_MAX_PATH = 32768  # characters, "Maximum Path Length Limitation"


class Win32Error(OSError):
    """A call of the Windows API failed. `call` is its name, `code` the result of `GetLastError`."""

    def __init__(self, call: str, code: int) -> None:
        self.call = call
        self.code = code
        meaning = MEANINGS.get(code, "see the system error codes of Windows")
        super().__init__(f"{call}: error {code}, {meaning}")


@dataclass(frozen=True, slots=True)
class Kernel32:
    """The functions of a loaded kernel32. Those on jobs and handles raise `Win32Error`, those on files `OSError`.

    Attributes:
        library: has the functions of `JOB_FUNCTIONS` and `OTHER_FUNCTIONS` as attributes.
        last_error: returns what `GetLastError` gave after the latest call of this thread.
        word: bytes of a pointer and of `SIZE_T`.
    """

    library: Any
    last_error: Callable[[], int]
    word: int = ctypes.sizeof(ctypes.c_void_p)

    def __post_init__(self) -> None:
        for name, result, arguments in JOB_FUNCTIONS + OTHER_FUNCTIONS:
            function = getattr(self.library, name)
            function.restype = result
            function.argtypes = list(arguments)

    def create_job(self) -> int:
        """Create a job. It has no name, so other processes can't open it, and children don't inherit the handle."""
        handle: int | None = self.library.CreateJobObjectW(None, None)
        if not handle:
            raise Win32Error("CreateJobObjectW", self.last_error())
        return handle

    def set_information(self, job: int, kind: int, record: bytes) -> None:
        """Set a record of class `kind` on `job`."""
        buffer = ctypes.create_string_buffer(record, len(record))
        answer = self.library.SetInformationJobObject(job, kind, ctypes.addressof(buffer), len(record))
        self._check("SetInformationJobObject", answer)

    def query_information(self, job: int | None, kind: int, size: int) -> bytes:
        """The record of class `kind` of `job` or, for `None`, of the innermost job of this process."""
        buffer = ctypes.create_string_buffer(size)
        answer = self.library.QueryInformationJobObject(job, kind, ctypes.addressof(buffer), size, None)
        self._check("QueryInformationJobObject", answer)
        return buffer.raw

    def assign(self, job: int) -> None:
        """Put this process into `job`, which it can't leave again."""
        answer = self.library.AssignProcessToJobObject(job, self.library.GetCurrentProcess())
        self._check("AssignProcessToJobObject", answer)

    def in_job(self, job: int | None) -> bool:
        """Whether this process is in `job` or, for `None`, in any job."""
        found = BOOL(0)
        answer = self.library.IsProcessInJob(self.library.GetCurrentProcess(), job, ctypes.addressof(found))
        self._check("IsProcessInJob", answer)
        return bool(found.value)

    def memory_information(self, record: bytearray) -> bytes:
        """Fill `record`, a `PROCESS_MEMORY_COUNTERS` or `_EX` that contains its own size, for this process."""
        buffer = ctypes.create_string_buffer(bytes(record), len(record))
        answer = self.library.K32GetProcessMemoryInfo(
            self.library.GetCurrentProcess(), ctypes.addressof(buffer), len(record)
        )
        self._check("K32GetProcessMemoryInfo", answer)
        return buffer.raw

    def open_file(self, path: str, access: int, disposition: int, flags: int) -> int:
        r"""Open `path` (verbatim, `\\?\...`) and return a handle that children don't inherit.

        FILE_SHARE_DELETE isn't given: other processes may read and write the file, but can't rename or remove it while
        the handle is open. So what was compared stays at its path.
        """
        share = FILE_SHARE_READ | FILE_SHARE_WRITE
        handle = self.library.CreateFileW(path, access, share, None, disposition, flags, None)
        if handle is None or handle == _INVALID_HANDLE:
            raise self._file_error(path)
        return int(handle)

    def final_path(self, handle: int) -> str:
        r"""The path of the open file: normalised, long names, links resolved, `\\?\C:\...` or `\\?\UNC\...`."""
        buffer = ctypes.create_unicode_buffer(_MAX_PATH)
        length = self.library.GetFinalPathNameByHandleW(handle, buffer, _MAX_PATH, 0)
        if not 0 < length < _MAX_PATH:
            raise self._file_error("")
        return buffer.value

    def is_disk_file(self, handle: int) -> bool:
        """Whether it's a file or directory, not a pipe, console or other device."""
        return int(self.library.GetFileType(handle)) == FILE_TYPE_DISK

    def close(self, handle: int) -> None:
        """Close `handle`."""
        self._check("CloseHandle", self.library.CloseHandle(handle))

    def _check(self, call: str, answer: int) -> None:
        if not answer:
            raise Win32Error(call, self.last_error())

    def _file_error(self, path: str) -> OSError:
        number = self.last_error()
        # On Windows, OSError derives errno and its subclass from the fourth argument; elsewhere it keeps the first.
        return OSError(errno.EIO, f"Win32 error {number}", path, number)


def load_kernel32() -> Kernel32:
    """The kernel32 of this system; raises `OSError` on other systems than Windows."""
    if sys.platform == "win32":
        return Kernel32(ctypes.WinDLL("kernel32", use_last_error=True), ctypes.get_last_error)
    else:  # noqa: RET505 - mypy reads the two halves for two platforms
        raise OSError(errno.ENOSYS, "cannot load kernel32: it exists on Windows only")
