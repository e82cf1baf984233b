"""What a plugin gets back: the library's Response, decoding in bounded steps, and a body that hides its service.

httpx 0.28 inflates a whole chunk at once: 65 KB of gzip become 195 MiB before the first byte is handed out. Here each
coding is taken off in steps of `STEP` bytes. Codings that zlib does not have (br, zstd) stay on the body, as they do in
httpx without the packages for them.

At level `inline` hiding is least authority and not containment: Python code in the same process can reach anything.
"""

import asyncio
import codecs
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from nyx_stream.capabilities.http.service import FaultKind, HttpBody, HttpFault
from nyx_stream.errors import LimitExceeded
from nyx_stream.policy import Limits

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.library_adapter import LibraryAdapter

STEP = 64 * 1024
"""Bytes inflated at a time."""

_STEPS_AT_ONCE = 16
_MAX_CODINGS = 4
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

# Text codecs that no document uses. Two take time that grows with the square of the text, one only raises, two
# interpret escapes.
_NO_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape"})

# Each library has its own types for the same methods; the mixins are written against what they share.
_Response: Any = object


def hidden_slot(owner: type, name: str) -> Any:
    """Takes the descriptor of a slot off its class and returns it: only code that has it can read or set the slot."""
    descriptor = owner.__dict__[name]
    delattr(owner, name)
    return descriptor


class GuardedBody:
    """The body as the library reads it. No attribute leads from it to the service."""

    __slots__ = ("_parts",)

    def __init__(self, adapter: "LibraryAdapter", body: HttpBody, request: Any) -> None:
        _PARTS.__set__(self, (adapter, body, request))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        adapter, body, request = _PARTS.__get__(self)
        try:
            while (chunk := await body.read()) is not None:
                yield chunk
        except Exception as error:
            adapter.reraise(error, request)
            raise

    async def read_all(self) -> bytes:
        """Returns the rest of the body at once, still encoded. Raises the library's errors."""
        adapter, body, request = _PARTS.__get__(self)
        try:
            content: bytes = await body.read_all()
        except Exception as error:
            adapter.reraise(error, request)
            raise
        return content

    async def aclose(self) -> None:
        """Gives up the rest of the body."""
        await _PARTS.__get__(self)[1].aclose()


_PARTS = hidden_slot(GuardedBody, "_parts")


class GuardedResponse(_Response):  # type: ignore[misc]  # the base is known where it is mixed in
    """Reads and decodes under the bounds of the grant; everything else is the library's."""

    adapter: ClassVar["LibraryAdapter"]
    _content: bytes
    is_stream_consumed: bool
    is_closed: bool

    def begin(self, plugin: str | None, limits: Limits, started: float) -> None:
        """Sets whose response this is, the limits in force, and `perf_counter` when the request began."""
        self._plugin = plugin
        self._limits = limits
        self._started = started

    @property
    def max_redirects(self) -> int:
        """Redirects that one request may follow by the limits in force."""
        return self._limits.redirects

    @property
    def charset_encoding(self) -> str | None:
        """The charset of the Content-Type, if it's a text codec that takes linear time."""
        named: str | None = super().charset_encoding
        return named if named is not None and _is_charset(named) else None

    async def aread(self) -> bytes:
        """Reads and returns the whole decoded body. Raises `LimitExceeded`, and the library's errors."""
        if hasattr(self, "_content"):
            return self._content
        if self.is_stream_consumed or self.is_closed or not isinstance(self.stream, GuardedBody):
            content: bytes = await super().aread()
            return content
        self.is_stream_consumed = True
        try:
            raw = await self.stream.read_all()
        finally:
            self._finish()
        self._num_bytes_downloaded = len(raw)
        decoder = self._bounded_decoder()
        if decoder is not None:
            raw = b"".join([piece async for piece in self._decoded(decoder, raw, flush=True)])
        self._content = raw
        return raw

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the decoded body in pieces of `chunk_size` bytes. Raises `LimitExceeded`, and the library's errors."""
        decoder = None if hasattr(self, "_content") else self._bounded_decoder()
        if decoder is None:
            pieces = super().aiter_bytes(chunk_size) if hasattr(self, "_content") else self.aiter_raw(chunk_size)
            async for piece in pieces:
                yield piece
            return
        chunks = _Chunks(chunk_size)
        async with aclosing(self.aiter_raw()) as raw_chunks:
            async for raw in raw_chunks:
                async for piece in self._decoded(decoder, raw, flush=False):
                    for chunk in chunks.add(piece):
                        yield chunk
        async for piece in self._decoded(decoder, b"", flush=True):
            for chunk in chunks.add(piece):
                yield chunk
        if chunks.rest:
            yield bytes(chunks.rest)

    async def aclose(self) -> None:
        """Closes the response and gives its connection back."""
        if not self.is_closed:
            try:
                await self.stream.aclose()
            finally:
                self._finish()

    def _finish(self) -> None:
        self.is_closed = True
        self.elapsed = timedelta(seconds=time.perf_counter() - self._started)

    def _bounded_decoder(self) -> "Decoder | None":
        codings = self.headers.get("content-encoding")
        if codings is None:
            return None
        try:
            return decoder_for(codings, self._limits.response_bytes, self._plugin)
        except HttpFault as error:
            raise self.adapter.error(error, self._request) from error

    async def _decoded(self, decoder: "Decoder", raw: bytes, *, flush: bool) -> AsyncIterator[bytes]:
        steps = chain(decoder.decode(raw), decoder.flush()) if flush else decoder.decode(raw)
        try:
            for number, piece in enumerate(steps, 1):
                yield piece
                if number % _STEPS_AT_ONCE == 0:
                    # A body that inflates a thousandfold must not hold up the other plugins of the loop.
                    await asyncio.sleep(0)
        except (HttpFault, LimitExceeded) as error:
            raise self.adapter.error(error, self._request) from error


class _Chunks:
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

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yields decoded pieces of at most `STEP` bytes. Raises `LimitExceeded`, and `HttpFault`: DECODING_ERROR."""
        return self._run([data], final=False)

    def flush(self) -> Iterator[bytes]:
        """Yields the rest once the body has ended. Raises as `decode`."""
        return self._run([], final=True)

    def _run(self, pieces: Iterable[bytes], *, final: bool) -> Iterator[bytes]:
        for stage in self._stages:
            pieces = stage.run(pieces, final=final)
        return iter(pieces)


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


def _is_charset(name: str) -> bool:
    # A server chose it. Codecs from bytes to bytes (zlib, bz2, hex) would inflate a body without any bound.
    try:
        "a".encode(name)  # LookupError for a codec that isn't one of text
        return codecs.lookup(name).name not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False
