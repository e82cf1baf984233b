"""Verifies that a log is what was written: every record in its place, unchanged, and none missing.

What a chain without a key can't prove: anyone who can write the file can compute every hash anew from some record on,
and can cut off the records after the last seal. A key that they don't have prevents the first. A hash that was
published where they can't change it (`head`) reveals both, up to the record that it names.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from nyx_stream.audit.chain import Opening, Position, follows, name_of, read_opening, stated_hash
from nyx_stream.audit.reader import LogReader
from nyx_stream.audit.record import Record, from_line


@dataclass(frozen=True, slots=True)
class Fault:
    """The first record that isn't what was written. `line` counts from 1, in the file `path`."""

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a log.

    Attributes:
        fault: the first record that is wrong, or `None`.
        records: number of records before the fault, the log's own records included.
        segments: number of files that were read, the one with the fault included.
        head: hash of the last correct record, 64 hexadecimal digits.
        sealed: whether the last record is a seal. If not, the log is being written to, its writer was killed, or
            records were cut off.
        unfinished: bytes after the last complete line: a record that is being written, or whose writer was killed.
        keyed: whether the hashes are keyed.
    """

    fault: Fault | None
    records: int
    segments: int
    head: str
    sealed: bool
    unfinished: int
    keyed: bool


def verify(
    path: str | os.PathLike[str], *, key: bytes = b"", head: str | None = None, archived: bool = False
) -> Verification:
    """Verifies a log from its first segment to its last record.

    Args:
        path: of the log, or of one sealed segment.
        key: of the chain, if it has one.
        head: a hash that the log had at some time: one of its records must have it.
        archived: whether the oldest segments may be missing because they were moved elsewhere.

    Raises:
        OSError: a file can't be read.
    """
    text = os.fspath(path)
    check = _Check(key, published=bytes.fromhex(head) if head is not None else None, archived=archived)
    name, fault = text, None
    with LogReader(text) as log:
        for name, file in log.segments():
            fault = check.segment(name, file)
            if fault is not None:
                break
    if fault is None and check.records == 0:
        fault = Fault(text, 1, "the log has no records")
    if fault is None and check.published is not None:
        reason = "no record has the published hash: the end was cut off, or the log was rewritten"
        fault = Fault(name, check.line, reason)
    last = check.position.head.hex()
    return Verification(fault, check.records, check.segments, last, check.sealed, check.unfinished, bool(key))


class _Check:
    """The state of one verification."""

    def __init__(self, key: bytes, published: bytes | None, *, archived: bool) -> None:
        self.position = Position()
        self.records = self.segments = self.line = self.unfinished = 0
        self.sealed = False
        self.published = published
        """The published hash, until a record with it is found."""
        self._key = key
        self._archived = archived
        self._opening: Opening | None = None
        self._previous = ("", 0)  # last line of the previous segment

    def segment(self, path: str, lines: Iterable[bytes]) -> Fault | None:
        """Checks one file; returns its first fault."""
        if self._opening is not None and not self.sealed:
            return Fault(*self._previous, "a sealed segment ends without its seal: its end was cut off")
        self.segments += 1
        self.line = 0
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                self.unfinished = len(line)
                self.sealed = False
                break
            why = (self._open(line) if number == 1 else None) or self._record(line, number)
            if why is not None:
                return Fault(path, number, why)
            self.line = number
        self._previous = (path, self.line)
        return None

    def _open(self, line: bytes) -> str | None:
        """Checks the first line of a segment; returns what is wrong with it."""
        try:
            opening = read_opening(line)
        except ValueError as error:
            return str(error)
        if opening.key != name_of(self._key):
            return _wrong_key(opening, self._key)
        expected = 1 if self._opening is None else self._opening.number + 1
        if self._opening is None and self._archived and opening.number > 1:
            self.position = Position(opening.seq - 1, opening.previous)
        elif opening.number != expected:
            return f"this is segment {opening.number}, but segment {expected} is missing"
        elif opening.previous != self.position.head:
            return "this segment does not continue from the end of the previous one"
        self._opening = opening
        return None

    def _record(self, line: bytes, number: int) -> str | None:
        """Checks one complete line; returns what is wrong with it."""
        expected = self.position.seq + 1
        head = stated_hash(line)
        try:
            record = from_line(line)
        except ValueError as error:
            return f"record {expected} was changed: {error}"
        if head is None:
            return f"record {expected} was changed: it does not end with its hash"
        if not follows(line, self.position.head, self._key):
            return _misplaced(record, expected)
        if record.seq != expected:
            return f"record {record.seq} is in the place of record {expected}: the log was rewritten"
        self.sealed = record.kind == "seal"
        if self.sealed and record.values.get("records") != number:
            return f"the seal counts {record.values.get('records')} records, but it is record {number} of its file"
        if head == self.published:
            self.published = None
        self.position = Position(expected, head)
        self.records += 1
        return None


def _misplaced(record: Record, expected: int) -> str:
    if record.seq == expected:
        return f"record {expected} was changed, or the one before it was: its hash does not match"
    if record.seq < expected:
        return f"record {record.seq} found where record {expected} is expected: out of order, or repeated"
    one = record.seq == expected + 1
    missing = f"record {expected} is missing" if one else f"records {expected} to {record.seq - 1} are missing"
    return f"{missing} before record {record.seq}"


def _wrong_key(opening: Opening, key: bytes) -> str:
    if not key:
        return "the chain is keyed: verifying it takes the key"
    if opening.key is None:
        return "the chain has no key: it was written without one, or rewritten by someone who doesn't have it"
    return "the chain was written with another key"
