"""The file under an audit log: opened, repaired after a killed writer, appended to, sealed and rotated.

Several logs may append to one file: each holds a lock while it looks at where the chain stands and adds to it. Knows
records as bytes, and nothing of events, threads or policies.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from nyx_stream.audit import tail
from nyx_stream.audit.chain import Position, link, name_of
from nyx_stream.audit.locking import locked, sync, sync_folder
from nyx_stream.audit.record import Encoder, notice
from nyx_stream.audit.segments import (
    Opening,
    opening_members,
    read_opening,
    seal_members,
    sealed_name,
    sealed_segments,
)

_TRIES = 20
"""How often the file may be renamed by others while this log gets hold of it."""


class LogFile:
    """The last segment of the log at `path`, as one writer sees it.

    Args:
        path: a regular file; created with mode 0600.
        key: of the chain; empty for none.
        segment_bytes: a segment that has grown to this size is `full`.
        durable: whether what `append` returned from survives a power cut; otherwise, once `sync` returns.

    Raises (every method):
        OSError: nothing was done; of `append`, nothing was appended.
    """

    def __init__(self, path: str, key: bytes, segment_bytes: int, *, durable: bool) -> None:
        self.path = path
        self.position = Position()
        """Where the chain stands after the last record that this writer knows of."""
        self._key = key
        self._segment_bytes = self._full_at = segment_bytes
        self._durable = durable
        self._descriptor: int | None = None
        self._opening: Opening | None = None
        self._end = 0  # size of the file when `position` was its last record
        self._dirty = False
        self._mine = False  # whether the last record may be one of ours, and no seal

    @property
    def full(self) -> bool:
        """Whether it is time to `rotate`."""
        return self._end >= self._full_at

    def open(self) -> None:
        """Opens or creates the file, repairs its end and says so in a record."""
        self.append(())

    def append(self, members: Sequence[bytes]) -> None:
        """Appends records in one write(2), after what others have appended, or nothing."""
        with self._held() as descriptor:
            told = self._catch_up(descriptor)
            if told or members:
                self._write(descriptor, (*told, *members))
                self._mine = True

    def rotate(self) -> None:
        """Seals a full segment, gives it its name among the sealed ones and goes on in a new file.

        An error leaves the old file in use, sealed perhaps in its middle; `full` is then false for a while.
        """
        self._full_at = self._end + max(self._segment_bytes // 4, 1)
        with self._held() as descriptor:
            told = self._catch_up(descriptor)
            if told:
                self._write(descriptor, told)
            if self._end < self._segment_bytes or self._opening is None:
                return  # another log has rotated it
            name = sealed_name(self.path, self._opening.number)
            if os.path.lexists(name):
                raise FileExistsError(errno.EEXIST, "a sealed segment of that number is there already", name)
            self._seal(descriptor)
            sync(descriptor)
            if sys.platform == "win32":  # an open file cannot be renamed there
                self.close()
            os.rename(self.path, name)
            sync_folder(self.path)
        self.append(())

    def seal(self) -> None:
        """Closes what this writer appended with a seal."""
        if not self._mine:
            return
        with self._held() as descriptor:
            told = self._catch_up(descriptor)
            if told:
                self._write(descriptor, told)
            self._seal(descriptor)

    def sync(self) -> None:
        """Returns when everything appended survives a power cut."""
        if self._dirty and self._descriptor is not None:
            sync(self._descriptor)
            self._dirty = False

    def close(self) -> None:
        """Closes the file. Harmless when it is closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Gives the descriptor of the file that has the name now, locked."""
        for _ in range(_TRIES):
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = self._descriptor = _open(self.path)
                self._opening, self._end, self._full_at = None, -1, self._segment_bytes
            with locked(descriptor):
                if _leads_to(self.path, descriptor):
                    yield descriptor
                    return
            # Rotated by another log, or renamed by somebody: what we wrote there is to be as safe as anywhere.
            self.sync()
            self.close()
        raise OSError(errno.EBUSY, "the file is renamed over and over", self.path)

    def _catch_up(self, descriptor: int) -> tuple[bytes, ...]:
        """Learns where the chain stands. Returns the members of records that tell of a repair."""
        size = os.fstat(descriptor).st_size
        if size == self._end:
            return ()
        if size == 0:
            return self._begin(descriptor)
        told: tuple[bytes, ...] = ()
        if self._opening is None:
            self._opening = self._read_opening(descriptor)
        if size < self._end:
            # Somebody cut off records. The chain goes on from the last of them, so that their lack shows.
            told = (_told("cut", f"{self._end - size} bytes", "somebody cut the file while it was written to"),)
        rest, last = tail.read(descriptor, size, self.path)
        if rest:
            os.ftruncate(descriptor, size - rest)
            told += (_told("repair", f"{rest} bytes", "an unfinished last line was cut off: its writer was killed"),)
        if last is None:  # its only line was not finished: it begins anew
            self._opening, self._end = None, 0
            return (*self._begin(descriptor), *told)
        if last.seq > self.position.seq:
            self.position = last
        self._end = size - rest
        return told

    def _read_opening(self, descriptor: int) -> Opening | None:
        line = tail.first_line(descriptor)
        if not line.endswith(b"\n"):
            return None
        try:
            opening = read_opening(line)
        except ValueError as error:
            raise OSError(f"{self.path}: its first line is no audit line; not touched") from error
        if opening.key != name_of(self._key):
            wanted = "with another key" if self._key else "with a key, and none was given"
            raise OSError(f"{self.path}: is written {wanted if opening.key else 'without a key'}; not touched")
        return opening

    def _begin(self, descriptor: int) -> tuple[bytes, ...]:
        """Writes the first record of an empty file: it goes on from the last sealed segment, if there is one."""
        number = 1
        if sealed := sealed_segments(self.path):
            number = sealed[-1][0] + 1
            last = tail.last_position(sealed[-1][1])
            if last.seq > self.position.seq:
                self.position = last
        self._end = 0
        before, name = self.position, name_of(self._key)
        self._write(descriptor, (opening_members(number, before, name, time.time()),))
        self._opening = Opening(number, before.seq + 1, before.head, name)
        self._mine = True
        if self._durable:
            sync_folder(self.path)
        return ()

    def _seal(self, descriptor: int) -> None:
        if self._opening is not None:
            self._write(descriptor, (seal_members(self._opening, self.position, time.time()),))
            self._mine = False

    def _write(self, descriptor: int, members: Sequence[bytes]) -> None:
        lines, position = link(self.position, members, self._key)
        try:
            written = os.write(descriptor, lines)
            if written != len(lines):  # the disk is full inside the batch
                raise OSError(errno.ENOSPC, f"short write: {written} of {len(lines)} bytes")
            if self._durable:
                sync(descriptor)
        except OSError:
            # No half line stays behind. After a failed sync the kernel takes the pages for clean, and another sync
            # would confirm what is not on the disk: they are to be written again.
            with suppress(OSError):
                os.ftruncate(descriptor, self._end)
            raise
        self.position, self._end, self._dirty = position, self._end + len(lines), not self._durable


def _open(path: str) -> int:
    # O_NONBLOCK: a FIFO without a reader is an error (ENXIO with O_WRONLY, refused below) instead of a hang.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _told(action: str, target: str, reason: str) -> bytes:
    return Encoder().members(notice(action, target, reason, time.time()))
