"""A large value is read from its JSON in steps, so that the host's loop can turn in between.

Three kinds of values are the sum of pieces that are JSON by themselves, and as these most large ones are written: a
text, bytes (base64), and a list of elements that are alike. It is cut at a place that looks right, and each piece is
read by the decoder of the whole. That a place was not right, or anything else is not as expected, shows in a piece:
then the whole is read as if nothing had been tried. So the value is the one that the decoder gives for the whole, and
so is the error.

    "abc|def"  is  "abc" + "def"        [1,2|,|3,4]  is  [1,2] + [3,4]

Pieces that can all be read make a whole that can be read, wherever it was cut: what was read of each ended outside of
every character, escape and string, and on the level on which it began. Knows no frames and no loop.
"""

import re
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

from pydantic import JsonValue

from nyx_stream.isolation.remote.wire.frames import Pieces
from nyx_stream.isolation.remote.wire.types import Decode


class Sizes(NamedTuple):
    """Bytes of JSON that are read in one step. The slowest of each kind takes some 50 µs."""

    plain: int = 32 * 1024
    """Of base64, and of a text that has been ASCII without escapes so far."""
    text: int = 16 * 1024
    elements: int = 4 * 1024


SIZES = Sizes()

Steps = Generator[bool, None, Any]
"""Yields after each step whether it can go on: otherwise it waits for more to arrive."""

_NOTHING = memoryview(b"")
_QUOTE = b'"'
_ESCAPE = b"\\"
_CLOSING = {_QUOTE: _QUOTE, b"[": b"]"}
_LONGEST_ESCAPE = 6
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_BETWEEN = {_QUOTE: b'","', b"{": b"},{", b"[": b"],["}
"""What stands between two elements, by how the first one begins; between any others it is a comma."""
_TRIES = 4
"""Places that are tried: such a comma may also stand in a text, or on another level."""


class _Unlike(ValueError):
    """The JSON is not as its pieces were expected to be."""


def in_steps(decode: Decode, returns: JsonValue, body: Pieces, sizes: Sizes = SIZES) -> Steps:
    """Reads the JSON of a body, which need not be whole yet, and returns its value.

    `returns` describes what `decode` reads, as in `result_types`.

    Raises:
        ValueError: `decode` raises it for the whole.
    """
    while not body.parts:
        yield False
    begin, steps = body.parts[0][:1], None
    if begin == _QUOTE and returns is None:
        steps = _text(decode, body, sizes)
    elif begin == _QUOTE and returns == "bytes":
        steps = _bytes(decode, body, sizes.plain)
    elif begin == b"[" and (returns is None or (isinstance(returns, list) and returns[0] == "list")):
        steps = _list(decode, body, sizes.elements)
    if steps is not None:
        try:
            value = yield from steps
            if len(body) > 1 and body.parts[-1][-1:] == _CLOSING[begin]:
                return value
        except Exception:  # whatever it is, it is for the caller, who gets it below
            yield True
    while not body.whole:
        yield False
    return decode(bytes(body))


def _text(decode: Decode, body: Pieces, sizes: Sizes) -> Steps:
    texts: deque[str] = deque()
    left = b""
    size = sizes.text
    for chunk in _content(body, sizes.plain):
        if not chunk:
            yield False
        begin = 0
        while begin < len(chunk):
            piece = b"".join((_QUOTE, left, chunk[begin : begin + size], _QUOTE))
            begin += size
            left = b""
            cut = _cut(piece, len(piece) - 1)
            if cut < len(piece) - 1:
                left = piece[cut:-1]
                piece = piece[:cut] + _QUOTE
            more: str = decode(piece)
            texts.append(more)
            size = sizes.plain if more.isascii() and len(more) == len(piece) - 2 else sizes.text
            yield True
    texts.append(decode(b'"%b"' % left))
    # CPython lets a text grow in place that nobody else has. A join would want all of its memory at once, and for the
    # system to find it takes longer (560 µs for a MiB) than anything else here.
    text = ""
    while texts:
        text += texts.popleft()
        yield True
    return text


def _bytes(decode: Decode, body: Pieces, size: int) -> Steps:
    written = BytesIO()  # grows in place, too, and gives its buffer away
    left = b""
    for chunk in _content(body, size):
        if not chunk:
            yield False
            continue
        whole = (len(left) + len(chunk) - 1) // 4 * 4  # the last four characters may have padding
        cut = whole - len(left)
        if cut < 0:
            left += chunk
            continue
        piece = b"".join((_QUOTE, left, chunk[:cut], _QUOTE))
        left = bytes(chunk[cut:])
        values = _of_one_alphabet(decode, piece)
        if len(values) != whole // 4 * 3:
            raise _Unlike
        written.write(values)
        yield True
    written.write(_of_one_alphabet(decode, b'"%b"' % left))
    return written.getvalue()


def _of_one_alphabet(decode: Decode, text: bytes) -> bytes:
    """Decodes base64 of the alphabet that workers write: of both, each in a piece of its own, neither would show."""
    if b"+" in text or b"/" in text or _ESCAPE in text:
        raise _Unlike
    decoded: bytes = decode(text)
    return decoded


def _list(decode: Decode, body: Pieces, size: int) -> Steps:
    values: list[Any] = []
    between = b""
    left: list[bytes] = []
    for chunk in map(bytes, _content(body, size)):
        if not chunk:
            yield False
            continue
        between = between or _BETWEEN.get(chunk[:1], b",")
        rest, unlike = chunk, None
        for place in islice(_places(chunk, between), _TRIES):
            try:
                values += _elements(decode, (*left, chunk[:place]))
            except ValueError as error:
                unlike = error
                yield True
            else:
                left, rest, unlike = [], chunk[place + 1 :], None
                break
        if unlike is not None:
            raise unlike
        left.append(rest)
        yield True
    values += _elements(decode, left)
    return values


def _elements(decode: Decode, parts: Sequence[bytes]) -> list[Any]:
    elements: list[Any] = decode(b"[%b]" % b"".join(parts))
    if not elements:
        raise _Unlike  # beside a comma that is too many
    return elements


def _content(body: Pieces, size: int) -> Iterator[memoryview]:
    """Cuts what stands between the first byte and the last, into chunks of at most `size`.

    One that is empty says that more has to arrive first: a part that may be the last is kept back.
    """
    number = 0
    while True:
        while number >= len(body.parts) - (not body.whole):
            if body.whole:
                return
            yield _NOTHING
        part = memoryview(body.parts[number])
        number += 1
        view = part[number == 1 : len(part) - (body.whole and number == len(body.parts))]
        for begin in range(0, len(view), size):
            yield view[begin : begin + size]


def _places(chunk: bytes, between: bytes) -> Iterator[int]:
    """Yields where a comma looks like one between two elements, the last one first."""
    place = chunk.rfind(between)
    while place >= 0:
        # The quote may belong to a text; of one that begins the chunk it is not known.
        if between[:1] != _QUOTE or (place and chunk[place - 1 : place] != _ESCAPE):
            yield place + len(between) // 2
        place = chunk.rfind(between, 0, place + len(between) - 1)


def _cut(text: bytes, end: int) -> int:
    """Returns the last place up to `end` at which no escape, surrogate pair or character of UTF-8 is cut.

    `text` begins with its quote.
    """
    for back in range(1, 5):
        byte = text[end - back]
        if byte < 0x80:
            break
        if byte >= 0xC0:  # the first of `length` bytes (RFC 3629)
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end - back if back < length else end
    for _ in range(2):  # of a pair, the second half and the first
        begin = text.rfind(_ESCAPE, max(0, end - _LONGEST_ESCAPE), end)
        if begin < 0 or not (begin + 1 - len(text[: begin + 1].rstrip(_ESCAPE))) % 2:
            break  # none near, or one that is itself escaped
        length = _LONGEST_ESCAPE if text[begin + 1 : begin + 2] == b"u" else 2
        if begin + length <= end and not _HIGH_SURROGATE.match(text, begin):
            break
        end = begin
    return end
