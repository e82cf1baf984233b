"""The hash chain: records linked by hashes, across all files of a log.

Theory of operation
-------------------
A log is one chain of records, numbered from 1, in one or more files (*segments*). The canonical form of a record is its
line in the file up to the last member, `hash`. Hashing the bytes that are stored means that two readers can't disagree
about what was hashed. Each hash is BLAKE2b (RFC 7693) with 32 bytes, personalised, over

    hash of the previous record + canonical record

and keyed if the log has a key. Changing, removing or reordering a record therefore breaks every hash after it.

A segment begins with a record of kind `segment`, which holds the number of the file and the hash of the last record of
the previous file, so the chain can be followed, and verified, from any file. A segment that is full ends with a record
of kind `seal`, which counts its records; a sealed file that was cut is missing its seal.

An attacker who can write the file can compute a new chain from any record on, unless the log has a key that they don't
know. They can also cut off the end. Only a hash of the chain that was published elsewhere reveals that; see `verifier`.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

from nyx_stream.audit.record import VERSION, from_line, structure
from nyx_stream.regular_file import open_regular

SIZE = 32
"""Bytes of a hash."""

KEY_SIZES = range(16, 65)
"""Bytes of a key: enough that it can't be guessed, and no more than BLAKE2b accepts."""

LINE_START = b'{"v":%d,"seq":' % VERSION
"""The beginning of every line. A repair only cuts off text that begins like this."""

_PERSON = b"nyx-audit-1"
_HASH = b',"hash":"'
_END = b'"}\n'
_TAIL = len(_HASH) + 2 * SIZE + len(_END)


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a chain: number and hash of the last record. The default is before the first record."""

    seq: int = 0
    head: bytes = bytes(SIZE)


@dataclass(frozen=True, slots=True)
class Opening:
    """The first record of a segment. `previous` is zeros in segment 1; `key` is the `name_of` the key."""

    number: int
    seq: int
    previous: bytes
    key: str | None


def link(position: Position, members: Sequence[bytes], key: bytes = b"") -> tuple[bytes, Position]:
    """Returns the lines of the records that follow `position`, and the position after them."""
    seq, head = position.seq, position.head
    lines: list[bytes] = []
    new_hash = blake2b(digest_size=SIZE, key=key, person=_PERSON).copy  # copying costs half as much as constructing
    for text in members:
        seq += 1
        record = b"%b%d,%b" % (LINE_START, seq, text)
        hashed = new_hash()
        hashed.update(head)
        hashed.update(record)
        head = hashed.digest()
        lines.append(b"%b%b%b%b" % (record, _HASH, head.hex().encode(), _END))
    return b"".join(lines), Position(seq, head)


def stated_hash(line: bytes) -> bytes | None:
    """Returns the hash at the end of a complete line, or `None` if the line doesn't end like a record."""
    start = len(line) - _TAIL
    if start <= 0 or not line.endswith(_END) or line[start : start + len(_HASH)] != _HASH:
        return None
    digits = line[start + len(_HASH) : -len(_END)]
    try:
        head = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return head if head.hex().encode() == digits else None


def follows(line: bytes, previous: bytes, key: bytes = b"") -> bool:
    """Whether a complete line has the right hash for a record after the one whose hash is `previous`."""
    computed = blake2b(previous + line[:-_TAIL], digest_size=SIZE, key=key, person=_PERSON).digest()
    return computed == stated_hash(line)


def opening_members(opening: Opening, time: float) -> bytes:
    """Returns the members of the first record of a segment."""
    previous = opening.previous.hex()
    return structure("segment", "opened", time, number=opening.number, previous=previous, key=opening.key)


def seal_members(opening: Opening, before: Position, time: float) -> bytes:
    """Returns the members of the record that closes a segment. It counts the segment's records, itself included."""
    return structure("seal", "closed", time, number=opening.number, records=before.seq + 2 - opening.seq)


def read_opening(line: bytes) -> Opening:
    """Decodes the first line of a segment.

    Raises:
        ValueError: the line doesn't open a segment.
    """
    record = from_line(line)
    match record.values:
        case {"kind": "segment", "number": int(number), "previous": str(text), "key": str() | None as key}:
            with suppress(ValueError):
                return Opening(number, record.seq, bytes.fromhex(text), key)
    raise ValueError("does not begin with the record that opens a segment")


def name_of(key: bytes) -> str | None:
    """Returns 16 hexadecimal digits that tell keys apart without revealing the key, or `None` without a key."""
    return blake2b(digest_size=8, key=key, person=b"nyx-audit-key").hexdigest() if key else None


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a key file, without a newline at the end.

    Raises:
        OSError: the file can't be read.
        ValueError: the key doesn't have 16 to 64 bytes.
    """
    with open_regular(path) as file:
        key = file.read(KEY_SIZES.stop + 2).removesuffix(b"\n").removesuffix(b"\r")
    if len(key) not in KEY_SIZES:
        raise ValueError(f"{os.fspath(path)}: a key has {KEY_SIZES.start} to {KEY_SIZES.stop - 1} bytes")
    return key
