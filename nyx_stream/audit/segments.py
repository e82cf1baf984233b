"""The files of one log: `audit.jsonl` is written to, `audit.jsonl.000001` and so on were, and are sealed.

Knows names and the two records that hold segments together, not what stands between them.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nyx_stream.audit.chain import Position
from nyx_stream.audit.record import from_line, structure

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first record of a segment says.

    Attributes:
        number: of the segment, from 1.
        seq: number of this record in the chain.
        previous: hash of the last record of the segment before; zeros in the first.
        key: name of the key (`chain.name_of`), or `None` for a chain without one.
    """

    number: int
    seq: int
    previous: bytes
    key: str | None


def opening_members(number: int, before: Position, key: str | None, time: float) -> bytes:
    """Returns the members of the first record of a segment."""
    return structure("segment", "opened", time, number=number, previous=before.head.hex(), key=key)


def seal_members(opening: Opening, before: Position, time: float) -> bytes:
    """Returns the members of the record that closes a segment: how many records it holds, this one included."""
    return structure("seal", "closed", time, number=opening.number, records=before.seq + 2 - opening.seq)


def read_opening(line: bytes) -> Opening:
    """Reads the first line of a segment.

    Raises:
        ValueError: it does not open a segment.
    """
    record = from_line(line)
    values = record.values
    try:
        number, previous, key = values["number"], bytes.fromhex(values["previous"]), values["key"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("does not begin with the record that opens a segment") from None
    if record.kind != "segment" or not isinstance(number, int) or not isinstance(key, str | None):
        raise ValueError("does not begin with the record that opens a segment")
    return Opening(number, record.seq, previous, key)


def sealed_name(path: str, number: int) -> str:
    """Returns the name that segment `number` gets when it is full."""
    return f"{path}.{number:0{_DIGITS}d}"


def sealed_segments(path: str) -> Sequence[tuple[int, str]]:
    """Returns number and path of the sealed segments of the log at `path`, in order.

    Raises:
        OSError: the directory cannot be read.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(rf"{re.escape(name)}\.([0-9]{{{_DIGITS},}})")
    found = ((pattern.fullmatch(entry), entry) for entry in os.listdir(folder or "."))
    return sorted((int(match[1]), os.path.join(folder, entry)) for match, entry in found if match is not None)
