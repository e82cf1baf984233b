"""The ends of a log file: its first line, its last whole line, and what a killed writer left behind it. Only reads."""

import os

from nyx_stream.audit.chain import LINE_START, Position, stated
from nyx_stream.audit.record import from_line

LONGEST_LINE = 1 << 20
"""Bytes. Each of six texts is cut to `text.MAX_LENGTH` characters; one takes 12 bytes at most, escaped twice."""

_WINDOW = 1 << 14


def first_line(descriptor: int) -> bytes:
    """Returns the first line, without its newline if that is missing or far away."""
    data = _read_at(descriptor, 0, LONGEST_LINE)
    end = data.find(b"\n")
    return data if end < 0 else data[: end + 1]


def read(descriptor: int, size: int, path: str) -> tuple[int, Position | None]:
    """Returns how many bytes at the end are no whole line, and the position of the last whole line.

    The position is `None` if there is no whole line. SIGKILL can end a write(2) between two pages of it (Linux,
    `generic_perform_write` in mm/filemap.c); after a power cut the end may be filled with NUL.

    Raises:
        OSError: the file ends in something that no log writes.
    """
    window = _WINDOW
    while True:
        start = max(0, size - window)
        data = _read_at(descriptor, start, size - start)
        end = data.rfind(b"\n")
        before = data.rfind(b"\n", 0, max(end, 0))
        if before >= 0 or start == 0:
            break
        if window > 2 * LONGEST_LINE:
            raise OSError(f"{path}: ends in a text that is no audit line; not touched")
        window *= 4
    rest = data[end + 1 :]
    begun = rest.rstrip(b"\0")
    if not (begun.startswith(LINE_START) or LINE_START.startswith(begun)):
        raise OSError(f"{path}: ends in a text that is no audit line; not touched")
    return len(rest), _position(data[before + 1 : end + 1], path) if end >= 0 else None


def last_position(path: str) -> Position:
    """Returns the position of the last whole line of a sealed segment.

    Raises:
        OSError: it cannot be read, or is none.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        _, position = read(descriptor, os.fstat(descriptor).st_size, path)
    finally:
        os.close(descriptor)
    if position is None:
        raise OSError(f"{path}: holds no audit line")
    return position


def _position(line: bytes, path: str) -> Position:
    head = stated(line)
    try:
        seq = from_line(line).seq
    except ValueError:
        head = None
    if head is None:
        raise OSError(f"{path}: its last line is no audit line; not touched")
    return Position(seq, head)


def _read_at(descriptor: int, start: int, length: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    parts: list[bytes] = []
    while length > 0 and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
