"""A log read back: its sealed segments in order, then the file that is written to. Only reads."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.record import Record, from_line
from nyx_stream.audit.segments import sealed_segments


class UnreadableLine(ValueError):
    """A whole line that is no record. `path` and `number` (from 1) say which."""

    def __init__(self, path: str, number: int, why: str) -> None:
        self.path = path
        self.number = number
        self.why = why
        super().__init__(f"{path}:{number}: {why}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: its bytes with the newline, and what they say."""

    text: bytes
    record: Record


def read_log(path: str | PathLike[str]) -> Iterator[AuditEvent]:
    """Yields the events of a log, oldest first, its sealed segments included.

    Among them is what the log has to say about itself (`kind` is `"log"`): events that were dropped, a line repaired.
    A killed writer's unfinished last line is passed over. Whether anything was changed, `verify` tells.

    Raises:
        OSError: a file cannot be read.
        ValueError: a whole line is not a record; the message names file and line.
    """
    for line in read_lines(os.fspath(path)):
        event = line.record.event
        if event is not None:
            yield event


def read_lines(path: str) -> Iterator[Line]:
    """Yields every whole line of a log. Raises as `read_log`, `UnreadableLine` for a line."""
    for name, file in open_segments(path):
        yield from whole_lines(name, file, 0)


def whole_lines(path: str, file: BinaryIO, before: int) -> Iterator[Line]:
    """Yields the whole lines from where `file` stands, after `before` of them; leaves it at the start of the next."""
    for number, text in enumerate(iter(file.readline, b""), before + 1):
        if not text.endswith(b"\n"):
            file.seek(-len(text), os.SEEK_CUR)
            return
        try:
            record = from_line(text)
        except ValueError as error:
            raise UnreadableLine(path, number, str(error)) from None
        yield Line(text, record)


def open_segments(path: str) -> Iterator[tuple[str, BinaryIO]]:
    """Yields name and open file of each segment of a log. The path of a sealed segment stands for that one alone.

    Raises:
        OSError: one cannot be opened; there is no log at `path`.
    """
    with ExitStack() as stack:
        # The last segment is opened first: if it is rotated now, it is found among the sealed ones too.
        last: BinaryIO | None = None
        try:
            last = stack.enter_context(open(path, "rb"))
        except FileNotFoundError:  # its writer was killed between two segments
            if not os.path.isdir(os.path.dirname(path) or ".") or not sealed_segments(path):
                raise
        for _, name in sealed_segments(path):
            with open(name, "rb") as file:
                if last is None or not os.path.samestat(os.fstat(file.fileno()), os.fstat(last.fileno())):
                    yield name, file
        if last is not None:
            yield path, last
