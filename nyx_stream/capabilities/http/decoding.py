"""Content codings, decoded in bounded steps: memory stays bounded however far a body inflates.

httpx 0.28 inflates a whole chunk at once: 65 KB of gzip become 195 MiB before the first byte is handed out. Codings
that zlib does not have (br, zstd) stay on the body, as they do in httpx without the packages for them.
"""

import codecs
import zlib
from collections.abc import Iterable, Iterator

from nyx_stream.capabilities.http.service import FaultKind, HttpFault
from nyx_stream.errors import LimitExceeded

STEP = 64 * 1024
"""Bytes inflated at a time."""

_MAX_CODINGS = 4
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

# Text codecs that no document uses. Two take time that grows with the square of the text, one only raises, two
# interpret escapes.
_NO_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape"})


class Chunks:
    """Cuts pieces to one size; `rest` holds what is left."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.rest = bytearray()

    def add(self, piece: bytes) -> list[bytes]:
        if self._size is None:
            return [piece]
        self.rest += piece
        size = max(self._size, 1)
        whole = len(self.rest) // size * size
        chunks = [bytes(self.rest[start : start + size]) for start in range(0, whole, size)]
        del self.rest[:whole]
        return chunks


class Decoder:
    """Takes the codings of one response off, in order. No stage may put out more than `max_bytes`."""

    def __init__(self, codings: list[str], max_bytes: int, plugin: str | None) -> None:
        self._stages = [_Inflater(coding, max_bytes, plugin) for coding in reversed(codings)]

    def decode(self, data: bytes, *, final: bool) -> Iterable[bytes]:
        """Yields decoded pieces of at most `STEP` bytes; after `final` data, also the rest.

        Raises `LimitExceeded`, and `HttpFault`: DECODING_ERROR.
        """
        pieces: Iterable[bytes] = [data]
        for stage in self._stages:
            pieces = stage.run(pieces, final=final)
        return pieces


def decoder_for(content_encoding: str, max_bytes: int, plugin: str | None = None) -> Decoder | None:
    """Returns the decoder for a Content-Encoding; `None` if it names no known coding. Raises `HttpFault`."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    codings = [name for name in names if name in _WINDOW]
    if len(codings) > _MAX_CODINGS:
        raise HttpFault(FaultKind.DECODING_ERROR, f"more than {_MAX_CODINGS} content codings")
    return Decoder(codings, max_bytes, plugin) if codings else None


class _Inflater:
    def __init__(self, coding: str, max_bytes: int, plugin: str | None) -> None:
        self._zlib = zlib.decompressobj(_WINDOW[coding])
        # Some servers send "deflate" without the zlib header; the first bytes tell.
        self._may_be_raw = coding == "deflate"
        self._max_bytes = max_bytes
        self._plugin = plugin
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
                if self._put_out > self._max_bytes:
                    detail = "the decoded response body is too large"
                    raise LimitExceeded(
                        plugin=self._plugin, limit="response_bytes", allowed=self._max_bytes, detail=detail
                    )
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
                raise HttpFault(FaultKind.DECODING_ERROR, str(error)) from error
            self._may_be_raw = False
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._step(data)
        self._may_be_raw = self._may_be_raw and not data
        return piece


def is_charset(name: str) -> bool:
    """Tells whether text may be decoded by `name`, which a server chose: by a text codec that takes linear time.

    Codecs from bytes to bytes (zlib, bz2, hex) would inflate a body without any bound.
    """
    try:
        "a".encode(name)  # LookupError for a codec that isn't one of text
        return codecs.lookup(name).name not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False
