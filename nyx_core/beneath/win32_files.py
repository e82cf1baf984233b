r"""The calls of kernel32 that opening below a directory needs. Knows no policy and no descriptor.

Sources: CreateFileW, GetFinalPathNameByHandleW, GetFileType, CloseHandle (Microsoft Learn, fileapi.h and
handleapi.h). The library is an argument, so that the calls can be recorded where there is no Windows.
"""

import ctypes
import errno
import sys
from collections.abc import Callable
from typing import Any

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
FILE_READ_ATTRIBUTES = 0x0080
FILE_SHARE_READ = 0x1
FILE_SHARE_WRITE = 0x2
CREATE_NEW = 1
OPEN_EXISTING = 3
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000  # without it a directory does not open
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000
FILE_TYPE_DISK = 0x0001

_INVALID = ctypes.c_void_p(-1).value
_LONGEST = 32768  # characters of a path, "Maximum Path Length Limitation"


class Kernel32:
    """Typed calls of one loaded library. `last_error` tells the thread's error number after a failure."""

    def __init__(self, library: Any, last_error: Callable[[], int]) -> None:
        self._library = library
        self._last_error = last_error
        number, text, handle = ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_void_p
        library.CreateFileW.argtypes = [text, number, number, handle, number, number, handle]
        library.CreateFileW.restype = handle
        library.GetFinalPathNameByHandleW.argtypes = [handle, text, number, number]
        library.GetFinalPathNameByHandleW.restype = number
        library.GetFileType.argtypes = [handle]
        library.GetFileType.restype = number
        library.CloseHandle.argtypes = [handle]
        library.CloseHandle.restype = ctypes.c_int

    def open(self, path: str, access: int, disposition: int, flags: int) -> int:
        r"""Opens `path` (verbatim, `\\?\…`) and returns a handle that is not inherited.

        Others may read and write meanwhile, but not rename or remove it: FILE_SHARE_DELETE is not given, so what
        was compared stays where it is for as long as the handle is open.
        """
        share = FILE_SHARE_READ | FILE_SHARE_WRITE
        handle = self._library.CreateFileW(path, access, share, None, disposition, flags, None)
        if handle is None or handle == _INVALID:
            raise self._error(path)
        return int(handle)

    def final_path(self, handle: int) -> str:
        r"""Where the handle leads to: normalised, long names, links resolved, `\\?\C:\…` or `\\?\UNC\…`."""
        buffer = ctypes.create_unicode_buffer(_LONGEST)
        length = self._library.GetFinalPathNameByHandleW(handle, buffer, _LONGEST, 0)
        if not 0 < length < _LONGEST:
            raise self._error("")
        return buffer.value

    def is_disk(self, handle: int) -> bool:
        """Whether it is a file or directory, and no pipe, console or other device."""
        return int(self._library.GetFileType(handle)) == FILE_TYPE_DISK

    def close(self, handle: int) -> None:
        """Closes the handle."""
        if not self._library.CloseHandle(handle):
            raise self._error("")

    def _error(self, path: str) -> OSError:
        number = self._last_error()
        # On Windows OSError derives errno from the fourth argument, elsewhere it keeps the first.
        return OSError(errno.EIO, f"Win32 error {number}", path, number)


def load_kernel32() -> Kernel32:
    """The system's library.

    Raises:
        OSError: this is not Windows.
    """
    if sys.platform == "win32":
        return Kernel32(ctypes.WinDLL("kernel32", use_last_error=True), ctypes.get_last_error)
    else:  # noqa: RET505 - mypy reads the two halves for two platforms
        raise OSError(errno.ENOSYS, "kernel32 is a library of Windows")
