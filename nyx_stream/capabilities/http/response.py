"""What a plugin gets back: the library's Response, decoding in bounded steps, and a body without a way to the pool.

Mixed into the classes of each library. At level `inline` this is least authority and not containment: Python code in
the same process can walk closures and frames.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from itertools import chain
from typing import Any, ClassVar

from nyx_stream.capabilities.http.decoding import BadCoding, Decoder, decoder_for, is_charset
from nyx_stream.capabilities.http.errors import Exceeded
from nyx_stream.capabilities.http.exchange import Sink
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter

# Each library has its own types for the same methods; the mixins are written against what they share.
_Stream: Any = object
_Response: Any = object


_STEPS_AT_ONCE = 16


class GuardedBody(_Stream):  # type: ignore[misc]  # the base is known where it is mixed in
    """The body as the library reads it. Its attributes are functions."""

    __slots__ = ("_drain", "_end", "_next", "_relay")

    def __init__(
        self,
        next_chunk: Callable[[], Awaitable[bytes | None]],
        drain: Callable[[], Awaitable[bytes]],
        end: Callable[[], Awaitable[None]],
        relay: Callable[[Sink], Awaitable[None]] | None = None,
    ) -> None:
        self._next = next_chunk
        self._drain = drain
        self._end = end
        self._relay = relay

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._next()) is not None:
            yield chunk

    async def drain(self) -> bytes:
        """The whole body at once, still encoded; the connection is given back."""
        return await self._drain()

    async def relay(self, sink: Sink) -> None:
        """Passes what is left of the body on to `sink` as it arrives, still encoded."""
        if self._relay is not None:
            await self._relay(sink)
            return
        async for chunk in self:
            if not sink.offer(chunk):
                await sink.drain()

    async def aclose(self) -> None:
        """Gives the connection back."""
        await self._end()


class GuardedResponse(_Response):  # type: ignore[misc]  # the base is known where it is mixed in
    """Reads and decodes under the bounds of the grant; everything else is the library's."""

    dialect: ClassVar[LibraryAdapter]
    _content: bytes
    is_stream_consumed: bool
    is_closed: bool

    def begin(self, plugin: str | None, most: int, started: float) -> None:
        """Sets whose response it is, the bound for the decoded body in bytes, and the request's `perf_counter`."""
        self._plugin = plugin
        self._most = most
        self._started = started

    @property
    def charset_encoding(self) -> str | None:
        """The charset of the Content-Type, if it names one that text may be decoded by."""
        named: str | None = super().charset_encoding
        return named if named is not None and is_charset(named) else None

    async def aread(self) -> bytes:
        """Reads and returns the whole decoded body. Raises `LimitExceeded`, and the library's errors."""
        if hasattr(self, "_content"):
            return self._content
        if self.is_stream_consumed or self.is_closed or not isinstance(self.stream, GuardedBody):
            content: bytes = await super().aread()
            return content
        self.is_stream_consumed = True
        try:
            raw = await self.stream.drain()
        finally:
            self._finish()
        self._num_bytes_downloaded = len(raw)
        decoder = self._bounded_decoder()
        if decoder:
            raw = b"".join([piece async for piece in self._decoded(decoder, raw, flush=True)])
        self._content = raw
        return raw

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the decoded body in pieces of `chunk_size` bytes. Raises `LimitExceeded`, and the library's errors."""
        decoder = None if hasattr(self, "_content") else self._bounded_decoder()
        if not decoder:
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

    def _bounded_decoder(self) -> Decoder:
        try:
            return decoder_for(self.headers.get("content-encoding"), self._most)
        except BadCoding as error:
            raise self._fault(error) from error

    async def _decoded(self, decoder: Decoder, raw: bytes, *, flush: bool) -> AsyncIterator[bytes]:
        steps = chain(decoder.decode(raw), decoder.flush()) if flush else decoder.decode(raw)
        try:
            for number, piece in enumerate(steps, 1):
                yield piece
                if number % _STEPS_AT_ONCE == 0:
                    # A body that inflates a thousandfold must not hold up the other plugins of the loop.
                    await asyncio.sleep(0)
        except BadCoding as error:
            raise self._fault(error) from error
        except Exceeded as error:
            raise self._exceeded(error) from error

    def _fault(self, error: BadCoding) -> Exception:
        fault: Exception = self.dialect.library.DecodingError(str(error), request=self._request)
        return fault

    def _exceeded(self, error: Exceeded) -> Exception:
        exceeded: Any = self.dialect.exceeded(
            plugin=self._plugin, limit=error.limit, allowed=error.allowed, detail=error.detail
        )
        exceeded.request = self._request
        return exceeded  # type: ignore[no-any-return]  # a class of the dialect


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
