"""openat2(2) of Linux 5.6: the kernel keeps path resolution below a directory.

glibc has no wrapper, so the call goes through `syscall`. Source: openat2(2), include/uapi/linux/openat2.h.
"""

import ctypes
import errno
import os
import sys

from nyx_core.beneath.errors import EscapesRoot
from nyx_core.beneath.walk import Opener

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08

# Linux gives new calls one number on every architecture since 5.1 (alpha, which adds 110, has no Python builds).
_SYS_OPENAT2 = 437

MAX_RETRIES = 64
"""How often the call is repeated after EAGAIN. The kernel returns it if anything on the system was renamed during a
`..`, because it can't prove then that the walk stayed below. The limit keeps a storm of renames from holding a thread.
"""


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2_opener(root: int, fallback: Opener | None = None) -> Opener:
    """An opener below the directory descriptor `root`.

    `fallback` is called if openat2 fails with ENOSYS (before Linux 5.6), EPERM (a seccomp filter that doesn't know the
    call) or ELOOP (which may mean a magic link, an escape).

    The opener raises:
        EscapesRoot: an absolute path or link, a `..` above the root.
        OSError: what open(2) gives; EAGAIN after `MAX_RETRIES` races; without `fallback` also the three above.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    # Arguments are converted once: converting them in each call would take a fifth of its time.
    number, directory = ctypes.c_long.from_param(_SYS_OPENAT2), ctypes.c_long.from_param(root)
    size = ctypes.c_size_t.from_param(ctypes.sizeof(_OpenHow))
    hows: dict[int, object] = {}  # by flags; with O_CREAT by flags and mode

    def open_below(path: bytes, flags: int, mode: int) -> int:
        if 0 in path:  # b"\0" would cost ten times as much
            raise ValueError("embedded null byte")
        if flags in hows:
            how = hows[flags]
        else:
            key = flags | mode << 32 if flags & os.O_CREAT else flags
            how = hows[key] = hows.get(key) or _open_how(flags, mode)
        opened: int = call(number, directory, path, how, size)
        if opened >= 0:
            return opened
        for _ in range(MAX_RETRIES):
            error = ctypes.get_errno()
            # EINTR is retried as in os.open (PEP 475). Python runs signal handlers between two calls.
            if error not in (errno.EAGAIN, errno.EINTR):
                break
            opened = call(number, directory, path, how, size)
            if opened >= 0:
                return opened
        return _failed(ctypes.get_errno(), path, flags, mode, fallback)

    return open_below


def _failed(error: int, path: bytes, flags: int, mode: int, fallback: Opener | None) -> int:
    if error == errno.EXDEV:
        raise EscapesRoot(path)
    if fallback is not None and error in (errno.ENOSYS, errno.EPERM, errno.ELOOP):
        return fallback(path, flags, mode)
    raise OSError(error, os.strerror(error), os.fsdecode(path))


def _open_how(flags: int, mode: int) -> object:
    """A pointer that keeps the structure alive. No call writes to it, so threads may share it."""
    # The kernel refuses what openat ignores: a mode without O_CREAT is EINVAL.
    return ctypes.byref(_OpenHow(flags, mode if flags & os.O_CREAT else 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS))


def probe() -> str | None:
    """Why this process can't use openat2, or `None` if it can. Opens the root directory once and closes it."""
    if sys.platform != "linux":
        return "openat2 is a Linux system call"
    base = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(openat2_opener(base)(b".", os.O_PATH | os.O_CLOEXEC, 0))
    except OSError as error:
        # Any other error, such as EACCES for the root directory, comes from the call itself.
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return f"openat2 answers {errno.errorcode[error.errno]}"
    finally:
        os.close(base)
    return None
