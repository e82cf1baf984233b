"""Content codings taken off in bounded steps: memory stays bounded whatever a body inflates to.

httpx 0.28 inflates a whole chunk at once: 65 KB of gzip become 195 MiB before the first byte is handed out. Codings
that zlib does not know (br, zstd) are left on the body, as httpx does when it has no package for them.
"""

import codecs
import zlib
from collections.abc import Iterable, Iterator

from nyx_stream.capabilities.http.errors import Exceeded

ACCEPTED = "gzip, deflate"
"""What a guarded client offers to accept; a plugin may offer less or more, but more is not decoded."""

STEP = 64 * 1024
"""Bytes inflated at a time."""

_MOST_CODINGS = 4


# Codecs of text that no document is in. Two take time that grows with the square of the text, one only raises, two act
# on escapes.
_NO_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape"})


def is_charset(name: str) -> bool:
    """Whether text may be decoded by `name`, which a server chose: a codec of text, and one that takes linear time.

    Codecs from bytes to bytes (zlib, bz2, hex) would inflate a body without any bound.
    """
    try:
        "a".encode(name)  # LookupError if it is none of text
        return codecs.lookup(name).name not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False


class BadCoding(Exception):
    """The body is not what its Content-Encoding says."""


class Decoder:
    """Takes the codings of one response off, in order. Every stage may put out `most` bytes and no more."""

    def __init__(self, codings: Iterable[str], most: int) -> None:
        self._stages = [_Inflater(coding, most) for coding in reversed(list(codings))]

    def __bool__(self) -> bool:
        return bool(self._stages)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decoded pieces of at most `STEP` bytes. Raises `BadCoding` and `Exceeded`."""
        return self._run([data], final=False)

    def flush(self) -> Iterator[bytes]:
        """What is left once the body has ended. Raises as `decode`."""
        return self._run([], final=True)

    def _run(self, pieces: Iterable[bytes], *, final: bool) -> Iterator[bytes]:
        for stage in self._stages:
            pieces = stage.run(pieces, final=final)
        return iter(pieces)


def decoder_for(content_encoding: str | None, most: int) -> Decoder:
    """The decoder for a Content-Encoding value; a false one if there is nothing to take off. Raises `BadCoding`."""
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    codings = [name for name in names if name in _WINDOW]
    if len(codings) > _MOST_CODINGS:
        raise BadCoding(f"more than {_MOST_CODINGS} content codings")
    return Decoder(codings, most)


_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class _Inflater:
    def __init__(self, coding: str, most: int) -> None:
        self._zlib = zlib.decompressobj(_WINDOW[coding])
        # Some servers send "deflate" without the zlib header; the first bytes tell.
        self._may_be_raw = coding == "deflate"
        self._most = most
        self._put_out = 0

    def run(self, pieces: Iterable[bytes], *, final: bool) -> Iterator[bytes]:
        for data in pieces:
            yield from self._steps(data)
        if final:
            yield from self._steps(b"")

    def _steps(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._step(data)
            if piece:
                self._put_out += len(piece)
                if self._put_out > self._most:
                    raise Exceeded("response_bytes", self._most, "the decoded response body is too large")
                yield piece
            data = self._zlib.unconsumed_tail
            if self._zlib.eof or not (piece or data):
                return

    def _step(self, data: bytes) -> bytes:
        if self._zlib.eof:
            return b""
        try:
            piece = self._zlib.decompress(data, STEP)
        except zlib.error as error:
            if not self._may_be_raw:
                raise BadCoding(str(error)) from error
            self._may_be_raw = False
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._step(data)
        self._may_be_raw = self._may_be_raw and not data
        return piece
