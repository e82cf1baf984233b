"""The one door to the C library: system calls that Python has no name for. Checks every return code.

Knows no policy. Arguments are `int`, `None` (a null pointer), `bytes` (read by the kernel) or `bytearray` (written
by the kernel in place).
"""

from __future__ import annotations

import ctypes
import os

from nyx_core.linux.syscall_table import native_table

Argument = int | bytes | bytearray | None

PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_MOST = 6  # arguments of a system call

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * _MOST)  # takes integers, modulo 2**64, and bytes too
_NOTHING = (0,) * _MOST
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def _in_place(argument: Argument) -> object:
    return (ctypes.c_char * len(argument)).from_buffer(argument) if isinstance(argument, bytearray) else argument


def number_of(name: str) -> int:
    """Number of the system call `name` here; raises `OSError(ENOSYS)` where it is not known."""
    table = native_table()
    number = None if table is None else table.numbers.get(name)
    if number is None:
        raise OSError(38, f"no number for {name} on this architecture")
    return number


def _checked(answer: int) -> int:
    if answer == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


def syscall_number(number: int, *arguments: Argument) -> int:
    """Make system call `number`, the arguments that are not given set to 0. syscall(2).

    Raises `OSError` with the kernel's errno.
    """
    return _checked(_syscall(number, *map(_in_place, arguments), *_NOTHING[len(arguments) :]))


def syscall(name: str, *arguments: Argument) -> int:
    """Make the system call `name`; raises `OSError` with the kernel's errno, and ENOSYS if it is not known."""
    return syscall_number(number_of(name), *arguments)


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2) with the arguments that are not given set to 0, as newer options insist; raises `OSError`."""
    return _checked(_prctl(option, second, third, fourth, fifth))


def prctl_errno(option: int, second: int) -> int:
    """The errno of prctl(2), for whoever expects one; 0 if it succeeds."""
    return ctypes.get_errno() if _prctl(option, second, 0, 0, 0) == -1 else 0


def address_of(buffer: bytearray) -> int:
    """Where `buffer` lies in memory. Valid while the caller holds the buffer and does not resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def clear_environment() -> None:
    """Forget every environment variable of the C library, malformed ones too. clearenv(3)."""
    if _libc.clearenv() != 0:
        raise OSError(12, "clearenv")


def wipe(start: int, end: int) -> None:
    """Overwrite own memory with zeros. The caller vouches that nothing reads it any more."""
    ctypes.memset(start, 0, end - start)
