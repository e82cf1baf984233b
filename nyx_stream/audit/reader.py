"""Reads the files of a log: its segments in order, a log that is still being written, and the end of one file.

`audit.jsonl` is the file that is written to; `audit.jsonl.000001`, `audit.jsonl.000002` and so on are sealed.
"""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self

from nyx_stream.audit.chain import LINE_START, Position, stated_hash
from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.record import Record, from_line

MAX_LINE_BYTES = 1 << 20
"""Each of six texts is cut to `text.MAX_LENGTH` characters, and an escaped character takes at most 12 bytes."""


class UnreadableLine(ValueError):
    """A complete line isn't a record. `path` and `number` (from 1) say which one."""

    def __init__(self, path: str, number: int, reason: str) -> None:
        self.path = path
        self.number = number
        self.reason = reason
        super().__init__(f"{path}:{number}: {reason}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: its bytes with the newline, and the decoded record."""

    text: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter for events: every condition that isn't `None` must hold.

    `since` is inclusive, `until` is exclusive; both are seconds since the epoch.
    """

    plugin: str | None = None
    capability: str | None = None
    allowed: bool | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, event: AuditEvent) -> bool:
        """Whether the event passes the filter."""
        return (
            (self.plugin is None or event.plugin == self.plugin)
            and (self.capability is None or event.capability == self.capability)
            and (self.allowed is None or event.allowed == self.allowed)
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
        )


def read_log(path: str | os.PathLike[str]) -> Iterator[AuditEvent]:
    """Yields the events of a log, oldest first, sealed segments included.

    Among them are the log's reports about itself (`kind` is `"log"`): events that were dropped, a line repaired. The
    unfinished last line of a killed writer is skipped. To find out whether the log was changed, use `verify`.

    Raises:
        OSError: a file can't be read.
        ValueError: a complete line isn't a record; the message names file and line.
    """
    with LogReader(os.fspath(path)) as log:
        for line in log.lines():
            event = line.record.event
            if event is not None:
                yield event


class LogReader:
    """Reads the log at `path` from its first segment on. The path of a sealed segment is a log of that segment alone.

    The log may be written to and rotated meanwhile. A context manager; entering it and all methods raise `OSError` if a
    file can't be read or no log exists at `path`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = path
        self._file: BinaryIO | None = None
        self._number = 0  # of the last sealed segment that was opened
        self._lines_read = 0  # of the open segment

    def __enter__(self) -> Self:
        self._open_next()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def segments(self) -> Iterator[tuple[str, BinaryIO]]:
        """Yields path and open file of the present segment and of each later one."""
        while self._file is not None:
            last = self._is_last()  # before the file is read: once it's rotated, nothing is appended to it
            yield self._name, self._file
            if last or not self._open_next():
                return

    def lines(self) -> Iterator[Line]:
        """Yields each complete line that wasn't yielded before. Raises `UnreadableLine` if one isn't a record."""
        for name, file in self.segments():
            while text := file.readline():
                if not text.endswith(b"\n"):
                    file.seek(-len(text), os.SEEK_CUR)
                    break
                self._lines_read += 1
                try:
                    record = from_line(text)
                except ValueError as error:
                    raise UnreadableLine(name, self._lines_read, str(error)) from None
                yield Line(text, record)

    def _is_last(self) -> bool:
        try:
            return self._is_open(os.stat(self._path))
        except FileNotFoundError:
            return False

    def _is_open(self, file: os.stat_result) -> bool:
        return self._file is not None and os.path.samestat(file, os.fstat(self._file.fileno()))

    def _open_next(self) -> bool:
        """Opens the segment after the present one; returns whether there is one."""
        # Open the last segment before listing the sealed ones: if it's rotated now, it's found among them.
        last: BinaryIO | None = None
        try:
            last = open(self._path, "rb")  # noqa: SIM115  # kept until it is read
        except FileNotFoundError:  # a writer was killed between two segments, or is between them
            if not os.path.isdir(os.path.dirname(self._path) or "."):
                raise
        for number, name in sealed_segments(self._path):
            if number <= self._number:
                continue
            self._number = number
            if not self._is_open(os.stat(name)):  # it's open if it was the last segment until now
                if last is not None:
                    last.close()
                self._switch_to(name, open(name, "rb"))  # noqa: SIM115
                return True
        if last is not None:
            self._switch_to(self._path, last)
        elif self._file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        return last is not None

    def _switch_to(self, name: str, file: BinaryIO) -> None:
        if self._file is not None:
            self._file.close()
        self._name, self._file, self._lines_read = name, file, 0


def sealed_name(path: str, number: int) -> str:
    """Returns the file name of sealed segment `number`."""
    return f"{path}.{number:06d}"


def sealed_segments(path: str) -> Sequence[tuple[int, str]]:
    """Returns number and path of the sealed segments of the log at `path`, in order.

    Raises:
        OSError: the directory can't be read.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(rf"{re.escape(name)}\.([0-9]{{6,}})")
    found = ((pattern.fullmatch(entry), entry) for entry in os.listdir(folder or "."))
    return sorted((int(match[1]), os.path.join(folder, entry)) for match, entry in found if match is not None)


def first_line(descriptor: int) -> bytes:
    """Returns the first line. Its newline is missing if the file has none within `MAX_LINE_BYTES` bytes."""
    data = _read_at(descriptor, 0, MAX_LINE_BYTES)
    end = data.find(b"\n")
    return data if end < 0 else data[: end + 1]


def read_end(descriptor: int, size: int, path: str) -> tuple[int, Position | None]:
    """Returns how many bytes at the end belong to an unfinished line, and the position of the last complete line.

    The position is `None` without a complete line. SIGKILL can interrupt a write(2) between two pages (Linux,
    `generic_perform_write` in mm/filemap.c), and after a power cut the end may be filled with NUL.

    Raises:
        OSError: the file ends in text that no log writes.
    """
    start = max(0, size - 4 * MAX_LINE_BYTES)
    data = _read_at(descriptor, start, size - start)
    end = data.rfind(b"\n")
    before = data.rfind(b"\n", 0, max(end, 0))
    if before < 0 and start > 0:
        raise OSError(f"{path}: the end of the file isn't an audit record; the file was not changed")
    rest = data[end + 1 :]
    begun = rest.rstrip(b"\0")
    if not (begun.startswith(LINE_START) or LINE_START.startswith(begun)):
        raise OSError(f"{path}: the end of the file isn't an audit record; the file was not changed")
    if end < 0:
        return len(rest), None
    line = data[before + 1 : end + 1]
    head = stated_hash(line)
    try:
        seq = from_line(line).seq
    except ValueError:
        head = None
    if head is None:
        raise OSError(f"{path}: the last line isn't an audit record; the file was not changed")
    return len(rest), Position(seq, head)


def _read_at(descriptor: int, start: int, length: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    parts: list[bytes] = []
    while length > 0 and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
