"""The lock under which several hosts and commands, of one process or of many, write one lock file. Knows no content.

The file itself is replaced, so a lock on it would be one on what is gone. Where there is `flock(2)`, its folder is
locked, and nothing is left behind. On Windows a folder cannot be opened; there it is the first byte of a file beside it
(`_locking` of the C runtime), which stays: whoever removed it would leave room for two locks.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nyx_stream.errors import LockError

if sys.platform != "win32":
    import fcntl

PATIENCE = 5.0
"""Seconds to wait for another writer, which holds the lock for one read and one write."""

_PAUSE = 0.01
"""Seconds between two attempts."""


@contextmanager
def sole_writer(path: str) -> Iterator[None]:
    """Lets one at a time write the lock file `path`. Blocks.

    Raises:
        LockError: another process does not let it go.
        OSError: its folder, or the file beside it, cannot be opened.
    """
    if sys.platform == "win32":
        with _byte_of(guard_of(path), path):
            yield
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)  # this releases the lock


def guard_of(path: str) -> str:
    """Returns the path of the file whose first byte is locked, where folders cannot be."""
    return f"{path}.guard"


if sys.platform != "win32":

    def _lock(descriptor: int, path: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise LockError(path, "another process keeps it locked") from error
                time.sleep(_PAUSE)


if sys.platform == "win32":
    import msvcrt

    @contextmanager
    def _byte_of(guard: str, path: str) -> Iterator[None]:
        descriptor = os.open(guard, os.O_RDWR | os.O_CREAT | os.O_NOINHERIT, 0o600)
        try:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                    break
                except PermissionError as error:  # EACCES: another has it
                    if time.monotonic() > end:
                        raise LockError(path, "another process keeps it locked") from error
                    time.sleep(_PAUSE)
            try:
                yield
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)  # locks count from where the descriptor stands
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        finally:
            os.close(descriptor)
