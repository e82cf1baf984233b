"""Decodes a large JSON value in steps, while it arrives and in turns of the loop, so that the loop stays responsive.

Theory of operation
    Most large values are one of three kinds that are the sum of their parts: a text, bytes (base64), or a list of
    similar elements. Such a value is cut where a cut looks right, and each piece is decoded by the decoder of the
    whole value.

        "abc|def"  is  "abc" + "def"        [1,2|,|3,4]  is  [1,2] + [3,4]

    If a cut was wrong, or anything else isn't as expected, some piece fails to decode. Then the whole is decoded at
    once, as if nothing had been tried. So the value, or the error, is always the one that the decoder gives for the
    whole. Pieces that all decode always make up a whole that decodes, because each piece ended outside of
    every character, escape and string, and on the nesting level on which it began.

    `decode_in_steps` is a generator without I/O. `LargeValue` drives it: a few microseconds each time that more of the
    body arrives, and what is left at the end as steps of the `FairScheduler`.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from pydantic import JsonValue

from nyx_stream.isolation.remote.wire.channel import FairScheduler
from nyx_stream.isolation.remote.wire.frames import LargeBody
from nyx_stream.isolation.remote.wire.types import Decode

STEP_BUDGET = 30e-6
"""Seconds after which no further step begins in the same turn of the loop."""

_BIG = 256 * 1024
_RETAINED = 4 * 2**20


class LargeValue:
    """Decodes one body: a little each time that `advance` is called, the rest after `finish`."""

    __slots__ = ("_body", "_scheduler", "_steps", "_value")

    def __init__(self, decode: Decode, returns: JsonValue, body: LargeBody, scheduler: FairScheduler) -> None:
        self._body = body
        self._steps = decode_in_steps(decode, returns, body)
        self._scheduler = scheduler
        self._value: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def value(self) -> Any:
        """Waits until the whole body is decoded. Raises `ValueError` for JSON that doesn't fit."""
        return await self._value

    def advance(self) -> None:
        """Decodes some of what has arrived."""
        end = time.perf_counter() + STEP_BUDGET
        while next(self._steps) and time.perf_counter() < end:
            pass

    def finish(self) -> None:
        """Decodes the rest, of which everything has arrived."""
        if len(self._body) >= _BIG:
            _retain_memory()
        self._scheduler.run(self._step)

    def _step(self) -> None:
        if self._value.done():  # the caller was cancelled
            return
        try:
            self.advance()
        except StopIteration as stop:
            self._value.set_result(stop.value)
        except Exception as error:  # `value` raises it
            self._value.set_exception(error)
            self._value.exception()  # marks it as retrieved: the caller may be gone
        else:
            self._scheduler.run(self._step)


@cache
def _retain_memory() -> None:
    """Makes the C library keep the memory of large values for the next ones, once per process.

    By default glibc returns blocks above the largest block that was ever freed to the system, and each item of a stream
    of large items would get its memory anew: 250 page faults of 2.2 µs for each MiB. It learns the threshold from freed
    blocks (mallopt(3), M_MMAP_THRESHOLD), so freeing one that is never touched suffices. Up to 8 MiB then stay with the
    host, as after any result of 4 MiB. Other C libraries ignore it.
    """
    bytes(_RETAINED)


class StepSizes(NamedTuple):
    """Bytes of JSON decoded in one step. The slowest step of each kind takes about 50 µs."""

    plain: int = 32 * 1024
    """Of base64, and of text that has been ASCII without escapes so far."""
    text: int = 16 * 1024
    elements: int = 4 * 1024


STEP_SIZES = StepSizes()

Steps: TypeAlias = Generator[bool, None, Any]
"""Yields after each step: True if it can go on, False if it waits for more to arrive."""

_WAIT = memoryview(b"")
_QUOTE = b'"'
_ESCAPE = b"\\"
_CLOSING = {_QUOTE: _QUOTE, b"[": b"]"}
_MAX_ESCAPE = 6
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_SEPARATORS = {_QUOTE: b'","', b"{": b"},{", b"[": b"],["}
"""What separates two elements, by the first byte of the first one; for all others a comma does."""
_MAX_TRIES = 4
"""Positions that are tried: such a separator may also be part of a text, or of another nesting level."""


class _Unexpected(ValueError):
    """The JSON isn't what its pieces were expected to be."""


def decode_in_steps(decode: Decode, returns: JsonValue, body: LargeBody, sizes: StepSizes = STEP_SIZES) -> Steps:
    """Decodes the JSON of a body, which need not be complete yet, and returns its value.

    `returns` describes what `decode` returns, as in `types`.

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
        except Exception:  # if it is the caller's to see, decoding the whole raises it again
            yield True
    while not body.complete:
        yield False
    return decode(bytes(body))


def _text(decode: Decode, body: LargeBody, sizes: StepSizes) -> Steps:
    texts: deque[str] = deque()
    left = b""
    size = sizes.text
    for chunk in _chunks(body, sizes.plain):
        if not chunk:
            yield False
        begin = 0
        while begin < len(chunk):
            piece = b"".join((_QUOTE, left, chunk[begin : begin + size], _QUOTE))
            begin += size
            left = b""
            cut = _text_cut(piece, len(piece) - 1)
            if cut < len(piece) - 1:
                left = piece[cut:-1]
                piece = piece[:cut] + _QUOTE
            more: str = decode(piece)
            texts.append(more)
            size = sizes.plain if more.isascii() and len(more) == len(piece) - 2 else sizes.text
            yield True
    texts.append(decode(b'"%b"' % left))
    # CPython extends a text in place if nothing else refers to it. `join` would allocate all of its memory at once,
    # and that takes the system longer (560 µs for a MiB) than any step here.
    text = ""
    while texts:
        text += texts.popleft()
        yield True
    return text


def _bytes(decode: Decode, body: LargeBody, size: int) -> Steps:
    written = BytesIO()  # grows in place as well, and hands out its buffer without a copy
    left = b""
    for chunk in _chunks(body, size):
        if not chunk:
            yield False
            continue
        length = (len(left) + len(chunk) - 1) // 4 * 4  # the last four characters may be padded
        cut = length - len(left)
        if cut < 0:
            left += chunk
            continue
        piece = b"".join((_QUOTE, left, chunk[:cut], _QUOTE))
        left = bytes(chunk[cut:])
        values = _decode_base64(decode, piece)
        if len(values) != length // 4 * 3:
            raise _Unexpected
        written.write(values)
        yield True
    written.write(_decode_base64(decode, b'"%b"' % left))
    return written.getvalue()


def _decode_base64(decode: Decode, text: bytes) -> bytes:
    """Decodes base64 in the alphabet that workers use. A mix of both alphabets wouldn't show in single pieces."""
    if b"+" in text or b"/" in text or _ESCAPE in text:
        raise _Unexpected
    decoded: bytes = decode(text)
    return decoded


def _list(decode: Decode, body: LargeBody, size: int) -> Steps:
    values: list[Any] = []
    separator = b""
    left: list[bytes] = []
    for chunk in map(bytes, _chunks(body, size)):
        if not chunk:
            yield False
            continue
        separator = separator or _SEPARATORS.get(chunk[:1], b",")
        rest, failure = chunk, None
        for position in islice(_list_cuts(chunk, separator), _MAX_TRIES):
            try:
                values += _elements(decode, (*left, chunk[:position]))
            except ValueError as error:
                failure = error
                yield True
            else:
                left, rest, failure = [], chunk[position + 1 :], None
                break
        if failure is not None:
            raise failure
        left.append(rest)
        yield True
    values += _elements(decode, left)
    return values


def _elements(decode: Decode, parts: Sequence[bytes]) -> list[Any]:
    elements: list[Any] = decode(b"[%b]" % b"".join(parts))
    if not elements:
        raise _Unexpected  # next to a superfluous comma
    return elements


def _chunks(body: LargeBody, size: int) -> Iterator[memoryview]:
    """Yields the bytes between the first and the last, in chunks of at most `size`.

    An empty chunk means that more has to arrive first: a part that may be the last is held back.
    """
    number = 0
    while True:
        while number >= len(body.parts) - (not body.complete):
            if body.complete:
                return
            yield _WAIT
        part = memoryview(body.parts[number])
        number += 1
        view = part[number == 1 : len(part) - (body.complete and number == len(body.parts))]
        for begin in range(0, len(view), size):
            yield view[begin : begin + size]


def _list_cuts(chunk: bytes, separator: bytes) -> Iterator[int]:
    """Yields the positions of commas that seem to separate two elements, last one first."""
    position = chunk.rfind(separator)
    while position >= 0:
        # The quote may be escaped, and so belong to a text; at the start of a chunk that can't be told.
        if separator[:1] != _QUOTE or (position and chunk[position - 1 : position] != _ESCAPE):
            yield position + len(separator) // 2
        position = chunk.rfind(separator, 0, position + len(separator) - 1)


def _text_cut(text: bytes, end: int) -> int:
    """Returns the last position up to `end` that cuts no escape, surrogate pair or UTF-8 sequence.

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
        begin = text.rfind(_ESCAPE, max(0, end - _MAX_ESCAPE), end)
        if begin < 0 or not (begin + 1 - len(text[: begin + 1].rstrip(_ESCAPE))) % 2:
            break  # none near, or one that is itself escaped
        length = _MAX_ESCAPE if text[begin + 1 : begin + 2] == b"u" else 2
        if begin + length <= end and not _HIGH_SURROGATE.match(text, begin):
            break
        end = begin
    return end
