"""The file under an audit log: opened, repaired after a killed writer, appended to by whole lines.

Several logs, of one process or of many, may append to one file. Knows bytes and lines, not events.
"""

import os
import stat
import sys
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

LINE_START = b'{"time":'
"""How every line begins: what `repair` may cut off must look like this."""

_TAIL = 1 << 16
"""Bytes looked at for the last newline. A line is shorter: its texts are cut to `text.LONGEST` characters."""


def open_log(path: str) -> int:
    """Opens `path` for appending, created with mode 0600, its unfinished last line removed.

    Raises:
        OSError: it cannot be opened, is not a regular file, or ends in something that is no audit line.
    """
    # O_NONBLOCK: a FIFO without a reader is an error (ENXIO with O_WRONLY, refused below) instead of a hang.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
        if _alone(descriptor):
            _repair(descriptor, path)
        _announce(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def append(descriptor: int, lines: bytes) -> None:
    """Appends whole lines in one write(2), or nothing.

    A short write happens when the disk fills inside the batch: what got through is taken back, so that no
    half line stays behind.

    Raises:
        OSError: nothing was appended.
    """
    written = os.write(descriptor, lines)
    if written == len(lines):
        return
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if end == os.fstat(descriptor).st_size:  # otherwise another writer's lines follow: they are not ours to cut
        os.ftruncate(descriptor, end - written)
    raise OSError(f"short write: {written} of {len(lines)} bytes")


def _alone(descriptor: int) -> bool:
    """Whether no other log has the file open: then an unfinished last line is nobody's work in progress."""
    if sys.platform != "win32":  # where writers cannot announce themselves, a log is taken to be alone
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _announce(descriptor: int) -> None:
    """Holds a shared lock as long as the descriptor is open, for `_alone` of others."""
    if sys.platform != "win32":
        with suppress(BlockingIOError):  # another log is in its repair: it has judged the file before we write
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _repair(descriptor: int, path: str) -> None:
    """Cuts off an unfinished last line.

    SIGKILL can end a write(2) between two pages of it (Linux, `generic_perform_write` in mm/filemap.c).
    """
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    os.lseek(descriptor, start, os.SEEK_SET)
    tail = os.read(descriptor, size - start)
    rest = tail[tail.rfind(b"\n") + 1 :]
    if not rest:
        return
    if len(rest) == _TAIL or not (rest.startswith(LINE_START) or LINE_START.startswith(rest)):
        raise OSError(f"{path}: ends in a text that is no audit line; not touched")
    os.ftruncate(descriptor, size - len(rest))
