"""The edge between the HTTP service and the library that a plugin uses: `httpx` or `httpx2`.

An adapter makes the few classes that the library must get to see, reads the library's requests into `HttpRequest`, and
builds its responses. It's the one place where a service's errors become the library's. The guarded client is written
once against it.

No attribute leads from these objects to the service. At level `inline` that is least authority and not containment:
Python code in the same process can reach anything.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from math import inf
from types import ModuleType
from typing import Any, ClassVar

from nyx_stream.capabilities.http.decoding import Chunks, Decoder, decoder_for, is_charset
from nyx_stream.capabilities.http.service import (
    HttpBody,
    HttpFault,
    HttpLimits,
    HttpRequest,
    HttpService,
    RequestFlaw,
    Timeouts,
)
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked

_STEPS_AT_ONCE = 16

# Each library has its own types for the same methods; the mixins are written against what they share.
_Response: Any = object


def hidden_slot(owner: type, name: str) -> Any:
    """Takes the descriptor of a slot off its class and returns it: only code that has it can read or set the slot."""
    descriptor = owner.__dict__[name]
    delattr(owner, name)
    return descriptor


class _WithRequest:
    """Mixed into the library's errors: their `request`, built when it is first read."""

    _request: Any = None

    @property
    def request(self) -> Any:
        if callable(self._request):
            self._request = self._request()
        if self._request is None:
            raise RuntimeError("The .request property has not been set.")
        return self._request

    @request.setter
    def request(self, request: Any) -> None:
        self._request = request


class ServiceTransport:
    """The service as the library's transport, for library code that bypasses the methods of the guarded client."""

    __slots__ = ("_service",)
    adapter: "LibraryAdapter"

    def __init__(self, service: HttpService) -> None:
        _SERVICE.__set__(self, service)

    async def handle_async_request(self, request: Any) -> Any:
        return await self.adapter.send(_SERVICE.__get__(self), request)

    async def aclose(self) -> None:
        await _SERVICE.__get__(self).aclose()


_SERVICE = hidden_slot(ServiceTransport, "_service")


class GuardedBody:
    """The body as the library reads it. No attribute leads from it to the service."""

    __slots__ = ("_parts",)

    def __init__(self, adapter: "LibraryAdapter", body: HttpBody, request: Any) -> None:
        _PARTS.__set__(self, (adapter, body, request))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        adapter, body, request = _PARTS.__get__(self)
        while True:
            try:
                chunk = await body.read()
            except Exception as error:
                adapter.reraise(error, request)
                raise
            if chunk is None:
                return
            yield chunk

    async def read_all(self) -> bytes:
        adapter, body, request = _PARTS.__get__(self)
        try:
            content: bytes = await body.read_all()
        except Exception as error:
            adapter.reraise(error, request)
            raise
        return content

    async def aclose(self) -> None:
        await _PARTS.__get__(self)[1].aclose()


_PARTS = hidden_slot(GuardedBody, "_parts")


class GuardedResponse(_Response):  # type: ignore[misc]  # the base is known where it is mixed in
    """Reads and decodes under the bounds of the grant; everything else is the library's."""

    adapter: ClassVar["LibraryAdapter"]
    _content: bytes
    is_stream_consumed: bool
    is_closed: bool

    def begin(self, plugin: str | None, limits: HttpLimits, started: float) -> None:
        """Sets whose response this is, the limits in force, and `perf_counter` when the request began."""
        self._plugin = plugin
        self._limits = limits
        self._started = started

    @property
    def max_redirects(self) -> int:
        return self._limits.redirects

    @property
    def charset_encoding(self) -> str | None:
        """The charset of the Content-Type, if it's a text codec that takes linear time."""
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
            raw = await self.stream.read_all()
        finally:
            self._finish()
        self._num_bytes_downloaded = len(raw)
        if "content-encoding" in self.headers and (decoder := self._bounded_decoder()) is not None:
            raw = b"".join([piece async for piece in self._decoded(decoder, raw, final=True)])
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
        chunks = Chunks(chunk_size)
        async with aclosing(self.aiter_raw()) as raw_chunks:
            async for raw in raw_chunks:
                async for piece in self._decoded(decoder, raw, final=False):
                    for chunk in chunks.add(piece):
                        yield chunk
        async for piece in self._decoded(decoder, b"", final=True):
            for chunk in chunks.add(piece):
                yield chunk
        if chunks.rest:
            yield bytes(chunks.rest)

    async def aclose(self) -> None:
        if not self.is_closed:
            try:
                await self.stream.aclose()
            finally:
                self._finish()

    def _finish(self) -> None:
        self.is_closed = True
        self.elapsed = timedelta(seconds=time.perf_counter() - self._started)

    def _bounded_decoder(self) -> Decoder | None:
        try:
            return decoder_for(self.headers.get("content-encoding", ""), self._limits.response_bytes, self._plugin)
        except HttpFault as error:
            raise self.adapter.error(error, self._request) from error

    async def _decoded(self, decoder: Decoder, raw: bytes, *, final: bool) -> AsyncIterator[bytes]:
        try:
            for number, piece in enumerate(decoder.decode(raw, final=final), 1):
                yield piece
                if number % _STEPS_AT_ONCE == 0:
                    # A body that inflates a thousandfold must not hold up the other plugins of the loop.
                    await asyncio.sleep(0)
        except (HttpFault, LimitExceeded) as error:
            raise self.adapter.error(error, self._request) from error


class LibraryAdapter:
    """One library. `denied`, `revoked` and `exceeded` are Nyx's errors that are also the library's `RequestError`.

    They aren't a `TransportError`, so that layers which retry transport faults leave them alone.

    Args:
        library: the module of the library.
        module: name of the module that keeps the error classes, for pickle.
    """

    def __init__(self, library: ModuleType, module: str) -> None:
        self.library: Any = library
        self._own_error: type[Exception] = self.library.RequestError
        self.denied = self._error("HttpDenied", NetworkDenied, "A request isn't granted.", module)
        self.revoked = self._error("HttpRevoked", Revoked, "The host took the capability back.", module)
        self.exceeded = self._error("HttpLimitExceeded", LimitExceeded, "A limit of the grant was reached.", module)
        self._response: Any = type("Response", (GuardedResponse, self.library.Response), {"adapter": self})
        self._body: Any = type("Body", (GuardedBody, self.library.AsyncByteStream), {"__slots__": ()})
        self.transport: Any = type(
            "Transport", (ServiceTransport, self.library.AsyncBaseTransport), {"__slots__": (), "adapter": self}
        )

    def _error(self, name: str, kind: type[Any], doc: str, module: str) -> Any:
        bases = (_WithRequest, kind, self.library.RequestError)
        return type(name, bases, {"__doc__": doc, "__module__": module, "__qualname__": name})

    async def send(self, service: HttpService, request: Any, *, whole_body: bool = False) -> Any:
        """Sends a request of the library and returns its response, the body unread. Raises the library's errors."""
        started = time.perf_counter()
        try:
            reply = await service.send(self.read_request(request, whole_body=whole_body))
        except Exception as error:
            self.reraise(error, request)
            raise
        response = self._response(
            reply.status,
            headers=reply.headers,
            stream=self._body(self, reply.body, request),
            extensions={"http_version": reply.version, "reason_phrase": reply.reason},
            request=request,
        )
        response.begin(service.plugin, reply.limits, started)
        return response

    def read_request(self, request: Any, *, whole_body: bool) -> HttpRequest:
        """Reads a request object once, into exact types; after this nothing looks at the object again.

        An attribute may be a property that answers differently the second time, a value an instance of a subclass that
        overrides methods. Anything that isn't exactly of the expected type is a flaw.

        Raises RuntimeError for a synchronous stream.
        """
        method, url, body = request.method, request.url, request.stream
        headers, extensions = request.headers, request.extensions
        library, flaw, timeouts = self.library, None, None
        if type(body) is library.ByteStream:
            body = b"".join(body)
        elif not isinstance(body, AsyncIterable):
            raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")
        if type(method) is not str:
            flaw = RequestFlaw.METHOD
        elif type(url) is not library.URL or type(text := str(url)) is not str:
            flaw = RequestFlaw.URL
        elif type(headers) is not library.Headers:
            flaw = RequestFlaw.HEADERS
        elif type(extensions) is not dict:
            flaw = RequestFlaw.EXTENSIONS
        elif isinstance(body, bytes) and type(body) is not bytes:
            flaw = RequestFlaw.BODY
        elif (timeouts := _timeouts(extensions.get("timeout"))) is None:
            flaw = RequestFlaw.TIMEOUT
        if flaw is not None or timeouts is None:
            return HttpRequest("request", "", [], flaw=flaw)
        return HttpRequest(method, text, headers.raw, body, timeouts, whole_body)

    def error(self, error: Exception, request: Any) -> Exception:
        """Returns the library's error for one of a service's. `request` may be a function that builds it."""
        raised: Any
        if isinstance(error, self._own_error):  # of another client of the plugin's, raised in a request body
            return error
        if isinstance(error, NetworkDenied):
            raised = error.rebuilt_as(self.denied)
        elif isinstance(error, Revoked):
            raised = error.rebuilt_as(self.revoked)
        elif isinstance(error, LimitExceeded):
            raised = self.exceeded(plugin=error.plugin, limit=error.limit, allowed=error.allowed, detail=error.detail)
        elif isinstance(error, HttpFault):
            raised = getattr(self.library, error.kind.value)(str(error))
        else:
            return error
        raised.request = request
        return raised  # type: ignore[no-any-return]  # a class of the library

    def reraise(self, error: Exception, request: Any) -> None:
        """Raises the library's error for one of a service's; returns for any other."""
        raised = self.error(error, request)
        if raised is not error:
            raise raised from error


def _timeouts(values: object) -> Timeouts | None:
    """Returns the timeouts of the `timeout` extension; `None` if it holds anything else."""
    if values is None:
        return Timeouts()
    if type(values) is not dict:
        return None
    seconds = values.get("connect"), values.get("read"), values.get("write"), values.get("pool")
    for value in seconds:
        if value is not None and not (type(value) in (int, float) and 0 <= value < inf):
            return None
    return Timeouts(*seconds)
