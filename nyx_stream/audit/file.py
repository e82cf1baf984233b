"""The file of an audit log: opened, locked, repaired after a killed writer, appended to, sealed and rotated.

Theory of operation
-------------------
A log has one writer. It holds a `filelock` on `….lock` beside the file from `open` until `close`; a second writer gets
`EBUSY` at once. The operating system releases the lock however the process ends. The empty lock file stays: deleting it
would let two processes lock two different files of that name.

Before each append the writer compares the file with what it knows of it (`_prepare`). Usually the file is still at its
path and has the expected size, which takes three system calls. Otherwise:

- a larger file, or one that was just opened: read its end, cut off the unfinished line of a killed writer, and continue
  the chain after the last complete record;
- a smaller one: someone cut it. The chain continues from the records that are missing, so that `verify` finds the gap;
- an empty one: write the record that opens a segment, linked to the last sealed segment;
- no file, or another one, at the path: someone renamed it. Open the path anew.

`rotate` seals and renames the file and then relies on the last two cases.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nyx_stream.audit.chain import Opening, Position, link, name_of, opening_members, read_opening, seal_members
from nyx_stream.audit.reader import first_line, read_end, sealed_name, sealed_segments
from nyx_stream.audit.record import Encoder, notice

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FLAGS = 0
for _name in ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


class LogFile:
    """The last segment of the log at `path`, open for writing.

    Args:
        path: a regular file; created with mode 0600.
        key: of the chain; empty for none.
        segment_bytes: a segment that has grown to this size is `full`.
        durable: whether appended records survive a power cut when `append` returns, instead of when `sync` returns.

    Raises (every method):
        OSError: nothing was done; `append` has appended nothing.
    """

    def __init__(self, path: str, key: bytes, segment_bytes: int, *, durable: bool) -> None:
        self.path = path
        self.position = Position()
        """Position of the last record that was written or found."""
        self._key = key
        self._segment_bytes = self._full_at = segment_bytes
        self._durable = durable
        self._lock: BaseFileLock | None = None
        self._descriptor: int | None = None
        self._opening: Opening | None = None
        self._end = 0  # size of the file when `position` was its last record
        self._unsynced = False
        self._unsealed = False  # whether this writer appended records after the last seal

    @property
    def full(self) -> bool:
        """Whether it's time to `rotate`."""
        return self._end >= self._full_at

    def open(self) -> None:
        """Opens or creates the file, locks the log, repairs the end and records the repair."""
        from filelock import FileLock, Timeout  # late: importing it takes a third of the time of asyncio

        self._current_file()  # first: `acquire` would create missing directories
        try:
            self._lock = FileLock(f"{self.path}.lock", mode=0o600, thread_local=False)
            self._lock.acquire(blocking=False)
        except Timeout:
            advice = "give each host its own log file, or pass one AuditLog to the hosts of this process"
            raise OSError(errno.EBUSY, f"another host or process is writing to this log; {advice}", self.path) from None
        self._prepare()

    def append(self, members: Sequence[bytes]) -> None:
        """Appends records in one write(2), or nothing."""
        descriptor = self._prepare()
        if members:
            self._write(descriptor, members)

    def rotate(self) -> None:
        """Seals a full segment, renames it to its number and continues in a new file.

        After an error the old file stays in use, perhaps with a seal in the middle, and `full` is false for a while.
        """
        self._full_at = self._end + max(self._segment_bytes // 4, 1)
        descriptor = self._prepare()
        if self._end < self._segment_bytes or self._opening is None:
            return  # the path has a new file
        name = sealed_name(self.path, self._opening.number)
        if os.path.lexists(name):
            raise FileExistsError(errno.EEXIST, "a sealed segment of that number exists already", name)
        self._seal(descriptor)
        sync(descriptor)
        if sys.platform == "win32":  # an open file can't be renamed there
            self._close_file()
        os.rename(self.path, name)
        sync_folder(self.path)
        self._prepare()

    def seal(self) -> None:
        """Writes a seal after the records that this writer appended, if there are any."""
        if self._unsealed:
            self._seal(self._prepare())

    def sync(self) -> None:
        """Returns when everything that was appended survives a power cut."""
        if self._unsynced and self._descriptor is not None:
            sync(self._descriptor)
            self._unsynced = False

    def close(self) -> None:
        """Closes the file and releases the lock. Harmless if it's closed."""
        self._close_file()
        if self._lock is not None:
            self._lock.release()

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _prepare(self) -> int:
        """Finds the end of the chain, records a repair if there was one, and returns the descriptor."""
        descriptor = self._current_file()
        notices = self._find_end(descriptor)
        if notices:
            self._write(descriptor, notices)
        return descriptor

    def _current_file(self) -> int:
        """Returns the descriptor of the file that is at `path` now."""
        if self._descriptor is not None and _is_at(self.path, self._descriptor):
            return self._descriptor
        self.sync()  # records in a file that was renamed must be as safe as any
        self._close_file()
        self._descriptor = descriptor = _open(self.path)
        self._opening, self._end, self._full_at = None, -1, self._segment_bytes
        return descriptor

    def _find_end(self, descriptor: int) -> tuple[bytes, ...]:
        """Updates `position`. Returns the members of records that report a repair."""
        size = os.fstat(descriptor).st_size
        if size == self._end and self._opening is not None:
            return ()
        if size == 0:
            self._begin(descriptor)
            return ()
        notices: tuple[bytes, ...] = ()
        if self._opening is None:
            self._opening = self._read_opening(descriptor)
        if size < self._end:
            # The chain continues from the records that were cut off, so that their absence shows.
            notices = (_notice("cut", self._end - size, "the file was cut while the log was writing to it"),)
        rest, last = read_end(descriptor, size, self.path)
        if rest:
            os.ftruncate(descriptor, size - rest)
            notices += (_notice("repair", rest, "an unfinished last line was cut off: its writer was killed"),)
        if last is None:  # the only line was unfinished: begin again
            self._opening = None
            self._begin(descriptor)
            return notices
        if last.seq > self.position.seq:
            self.position = last
        self._end = size - rest
        return notices

    def _read_opening(self, descriptor: int) -> Opening | None:
        line = first_line(descriptor)
        if not line.endswith(b"\n"):
            return None
        try:
            opening = read_opening(line)
        except ValueError as error:
            raise OSError(f"{self.path}: the first line isn't an audit record; the file was not changed") from error
        if opening.key != name_of(self._key):
            needed = "with another key" if self._key else "with a key, but none was given"
            used = needed if opening.key else "without a key, but one was given"
            raise OSError(f"{self.path}: the log was written {used}; the file was not changed")
        return opening

    def _begin(self, descriptor: int) -> None:
        """Writes the first record of an empty file, linked to the last sealed segment if there is one."""
        number = 1
        if sealed := sealed_segments(self.path):
            number = sealed[-1][0] + 1
            last = _last_position(sealed[-1][1])
            if last.seq > self.position.seq:
                self.position = last
        self._end = 0
        opening = Opening(number, self.position.seq + 1, self.position.head, name_of(self._key))
        self._write(descriptor, (opening_members(opening, time.time()),))
        self._opening = opening
        if self._durable:
            sync_folder(self.path)

    def _seal(self, descriptor: int) -> None:
        if self._opening is not None:
            self._write(descriptor, (seal_members(self._opening, self.position, time.time()),))
            self._unsealed = False

    def _write(self, descriptor: int, members: Sequence[bytes]) -> None:
        lines, position = link(self.position, members, self._key)
        try:
            written = os.write(descriptor, lines)
            if written != len(lines):  # the disk became full within the batch
                raise OSError(errno.ENOSPC, f"short write: {written} of {len(lines)} bytes")
            if self._durable:
                sync(descriptor)
        except OSError:
            # Remove the partial line. After a failed sync the kernel marks the pages as clean, so another sync would
            # confirm data that isn't on the disk: the records must be written again.
            with suppress(OSError):
                os.ftruncate(descriptor, self._end)
            raise
        self.position, self._end = position, self._end + len(lines)
        self._unsynced, self._unsealed = not self._durable, True


def _open(path: str) -> int:
    # O_NONBLOCK: a FIFO without a reader is refused below instead of blocking the open.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _last_position(path: str) -> Position:
    """Returns the position of the last record of a sealed segment."""
    descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        _, position = read_end(descriptor, os.fstat(descriptor).st_size, path)
    finally:
        os.close(descriptor)
    if position is None:
        raise OSError(f"{path}: has no audit record")
    return position


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _notice(action: str, count: int, reason: str) -> bytes:
    return Encoder().members(notice(action, f"{count} bytes", reason, time.time()))


def sync(descriptor: int) -> None:
    """Returns when the disk has the file's data and size. On macOS this includes the drive's own cache.

    Raises:
        OSError: it failed. Data may be lost even if a later call succeeds (fsync(2), "Notes").
    """
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif sys.platform == "win32":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


def sync_folder(path: str) -> None:
    """Returns when the disk has the directory entries beside `path`; a new file can be lost without it (fsync(2)).

    Raises:
        OSError: it failed.
    """
    if sys.platform != "win32":  # a directory can't be opened there; NTFS journals names itself
        descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
