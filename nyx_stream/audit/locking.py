"""The lock under which several logs, of one process or of many, write to one file. Knows descriptors only.

`flock(2)` belongs to the open file description and ends with it, however its process dies. On Windows there is none: a
file has one log there.
"""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import fcntl

PATIENCE = 5.0
"""Seconds to wait for another log; it holds the lock for one write, and one sync if its policy says so."""

_FIRST, _LONGEST = 0.0002, 0.02
"""Seconds between two tries."""


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Holds the file alone.

    Raises:
        OSError: `ETIMEDOUT`: another process does not let it go, because it is stopped or its disk hangs.
    """
    if sys.platform == "win32":
        yield
        return
    _lock(descriptor)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def sync(descriptor: int) -> None:
    """Returns when the disk has the file's bytes and its size; on macOS, when they left the drive's own cache too.

    Raises:
        OSError: it does not. What was written may be lost, even if a later call succeeds (fsync(2), "Notes").
    """
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif sys.platform == "win32":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


def sync_folder(path: str) -> None:
    """Returns when the disk has the names in the directory of `path`: a new file is lost without that (fsync(2)).

    Raises:
        OSError: it does not.
    """
    if sys.platform == "win32":  # a directory cannot be opened there; NTFS keeps names in its own log
        return
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform != "win32":

    def _lock(descriptor: int) -> None:
        end, pause = time.monotonic() + PATIENCE, _FIRST
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OSError(errno.ETIMEDOUT, "another process keeps the audit log locked") from None
                time.sleep(pause)
                pause = min(_LONGEST, pause * 2)
            else:
                return
