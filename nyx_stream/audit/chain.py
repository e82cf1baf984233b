"""The chain: each record's hash covers its bytes and the hash of the record before it. Pure; no clock, no file.

The canonical record is the line as it stands in the file up to its member `hash`, the last one: what is hashed is what
is read, so no two readers can differ about it. The hash is BLAKE2b (RFC 7693) with 32 bytes, personalised, over
`previous hash + canonical record`, keyed if the log has a key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from nyx_stream.audit.record import VERSION

SIZE = 32
"""Bytes of a hash."""

KEY_SIZES = range(16, 65)
"""Bytes of a key: at least as many as cannot be guessed, at most what BLAKE2b takes."""

LINE_START = b'{"v":%d,"seq":' % VERSION
"""How every line begins: what a repair may cut off must look like this."""

_PERSON = b"nyx-audit-1"
_HASH = b',"hash":"'
_END = b'"}\n'
_TAIL = len(_HASH) + 2 * SIZE + len(_END)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a chain: the number and the hash of the last record. The default is before the first."""

    seq: int = 0
    head: bytes = bytes(SIZE)


def link(position: Position, members: Sequence[bytes], key: bytes = b"") -> tuple[bytes, Position]:
    """Returns the lines of records that follow `position`, and the position after them."""
    seq, head = position.seq, position.head
    lines: list[bytes] = []
    fresh = blake2b(digest_size=SIZE, key=key, person=_PERSON).copy  # a copy costs half of what making one does
    for text in members:
        seq += 1
        record = b"%b%d,%b" % (LINE_START, seq, text)
        hashed = fresh()
        hashed.update(head)
        hashed.update(record)
        head = hashed.digest()
        lines.append(b"%b%b%b%b" % (record, _HASH, head.hex().encode(), _END))
    return b"".join(lines), Position(seq, head)


def stated(line: bytes) -> bytes | None:
    """Returns the hash that a whole line states; `None` if it does not end as a record ends."""
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
    """Whether a whole line is, byte by byte, what was written after the record with the hash `previous`."""
    computed = blake2b(previous + line[:-_TAIL], digest_size=SIZE, key=key, person=_PERSON).digest()
    return computed == stated(line)


def name_of(key: bytes) -> str | None:
    """Returns what a log says of its key without telling it: 16 hexadecimal digits, or `None` without a key."""
    return blake2b(digest_size=8, key=key, person=b"nyx-audit-key").hexdigest() if key else None
