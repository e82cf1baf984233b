"""Whether a log is what was written: every record in its place, unchanged, none missing. Only reads.

What a chain without a key cannot prove: whoever can write the file can compute every hash anew from some record on, and
can drop what follows the last seal of the last segment. A key that they do not have shuts the first, a hash published
where they cannot reach it (`head`) shuts both, up to the record that it names.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from nyx_stream.audit.chain import Position, follows, name_of, stated
from nyx_stream.audit.reading import open_segments
from nyx_stream.audit.record import Record, from_line
from nyx_stream.audit.segments import Opening, read_opening


@dataclass(frozen=True, slots=True)
class Fault:
    """The first record that is not what was written. `line` counts from 1, in the file `path`."""

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying a log found.

    Attributes:
        fault: the first record that is wrong, or `None`.
        records: how many, from the first on, are right; the log's own are counted too.
        segments: files that were read, the one with the fault included.
        head: hash of the last record that is right, 64 hexadecimal digits.
        sealed: whether the last record is a seal. If not, the log is being written to, its writer was killed, or
            records were cut off.
        unfinished: bytes after the last whole line: a record being written, or one whose writer was killed.
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
        head: a hash that the log is known to have had at some time: one of its records must have it.
        archived: whether the oldest segments may be missing, moved to another place.

    Raises:
        OSError: a file cannot be read.
    """
    text = os.fspath(path)
    check = _Check(key, published=bytes.fromhex(head) if head is not None else None, partial=archived)
    name, fault = text, None
    for name, file in open_segments(text):
        fault = check.segment(name, file)
        if fault is not None:
            break
    if fault is None and check.records == 0:
        fault = Fault(text, 1, "the log holds no record")
    if fault is None and check.published is not None:
        fault = Fault(name, check.line, "no record has the published hash: the end was cut off, or the log rewritten")
    return Verification(
        fault,
        check.records,
        check.segments,
        check.position.head.hex(),
        check.sealed,
        check.unfinished,
        bool(key),
    )


class _Check:
    """The state of one verification."""

    def __init__(self, key: bytes, published: bytes | None, *, partial: bool) -> None:
        self.position = Position()
        self.records = self.segments = self.line = self.unfinished = 0
        self.sealed = False
        self.published = published
        """The hash that is still to be found."""
        self._key = key
        self._partial = partial
        self._opening: Opening | None = None
        self._before = ("", 0)

    def segment(self, path: str, lines: Iterable[bytes]) -> Fault | None:
        """Checks one file; returns its first fault."""
        if self._opening is not None and not self.sealed:
            return Fault(*self._before, "a sealed segment ends without its seal: its end was cut off")
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
        self._before = (path, self.line)
        return None

    def _open(self, line: bytes) -> str | None:
        try:
            opening = read_opening(line)
        except ValueError as error:
            return str(error)
        if opening.key != name_of(self._key):
            return _wrong_key(opening, self._key)
        last = self._opening
        due = 1 if last is None else last.number + 1
        if last is None and (self._partial and opening.number > 1):
            self.position = Position(opening.seq - 1, opening.previous)
        elif opening.number != due:
            return f"this is segment {opening.number}, segment {due} is missing"
        elif opening.previous != self.position.head:
            return "this segment does not go on from the end of the one before it"
        self._opening = opening
        return None

    def _record(self, line: bytes, number: int) -> str | None:
        """Checks one whole line; returns what is wrong with it."""
        due = self.position.seq + 1
        head = stated(line)
        try:
            record = from_line(line)
        except ValueError as error:
            return f"record {due} was changed: {error}"
        if head is None:
            return f"record {due} was changed: it does not end in its hash"
        if not follows(line, self.position.head, self._key):
            return _misplaced(record, due)
        if record.seq != due:
            return f"record {record.seq} has the place of record {due}: the log was rewritten"
        self.sealed = record.kind == "seal"
        if self.sealed and record.values.get("records") != number:
            return f"the seal counts {record.values.get('records')} records, and closes {number}"
        if head == self.published:
            self.published = None
        self.position = Position(due, head)
        self.records += 1
        return None


def _misplaced(record: Record, due: int) -> str:
    if record.seq == due:
        return f"record {due} was changed, or the one before it rewritten: its hash does not follow"
    if record.seq < due:
        return f"record {record.seq} stands where record {due} is due: out of order, or repeated"
    missing = f"record {due} is missing" if record.seq == due + 1 else f"records {due} to {record.seq - 1} are missing"
    return f"{missing} before record {record.seq}"


def _wrong_key(opening: Opening, key: bytes) -> str:
    if not key:
        return "the chain is keyed: only its key can verify it"
    if opening.key is None:
        return "the chain has no key: it was written without, or rewritten by somebody who does not have it"
    return "the chain was written with another key"
