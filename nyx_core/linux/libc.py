"""Calls of the C library for which Python has no function. Checks every return code.

Arguments are `int`, `None` (a null pointer), `bytes` (read by the kernel) or `bytearray` (written by the kernel).
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

_MAX_ARGUMENTS = 6  # of a system call

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * _MAX_ARGUMENTS)  # takes integers, modulo 2**64, and bytes too
_ZEROS = (0,) * _MAX_ARGUMENTS
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def _in_place(argument: Argument) -> object:
    return (ctypes.c_char * len(argument)).from_buffer(argument) if isinstance(argument, bytearray) else argument


def number_of(name: str) -> int:
    """Number of the system call `name`; raises `OSError(ENOSYS)` if it's unknown on this architecture."""
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
    """Make system call `number`. Missing arguments are 0. syscall(2).

    Raises `OSError` with the kernel's errno.
    """
    return _checked(_syscall(number, *map(_in_place, arguments), *_ZEROS[len(arguments) :]))


def syscall(name: str, *arguments: Argument) -> int:
    """Make the system call `name`; raises `OSError` with the kernel's errno, or ENOSYS if the name is unknown."""
    return syscall_number(number_of(name), *arguments)


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2). Missing arguments are 0, as newer options require. Raises `OSError`."""
    return _checked(_prctl(option, second, third, fourth, fifth))


def prctl_errno(option: int, second: int) -> int:
    """The errno of prctl(2), or 0 if it succeeds."""
    return ctypes.get_errno() if _prctl(option, second, 0, 0, 0) == -1 else 0


def address_of(buffer: bytearray) -> int:
    """The address of `buffer`. Valid while the caller holds the buffer and doesn't resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def clear_environment() -> None:
    """Remove every environment variable of the C library, malformed ones too. clearenv(3)."""
    if _libc.clearenv() != 0:
        raise OSError(12, "clearenv")


def wipe(start: int, end: int) -> None:
    """Overwrite memory of this process with zeros. The caller must know that nothing uses it any more."""
    ctypes.memset(start, 0, end - start)
