"""The edge between the HTTP service and the library that a plugin uses: `httpx` or `httpx2`.

An adapter makes the few classes that the library must get to see, reads the library's requests into `HttpRequest`, and
builds its responses. It's the one place where a service's errors become the library's. The guarded client is written
once against it.
"""

import time
from collections.abc import AsyncIterable
from math import inf
from types import ModuleType
from typing import Any

from nyx_stream.capabilities.http.response import GuardedBody, GuardedResponse, hidden_slot
from nyx_stream.capabilities.http.service import HttpFault, HttpRequest, HttpService, RequestFlaw, Timeouts
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked


class LibraryAdapter:
    """One library. `denied`, `revoked` and `exceeded` are Nyx's errors that are also the library's `RequestError`.

    They are no `TransportError`, so that layers which retry transport faults leave them alone.

    Args:
        library: the module of the library.
        module: name of the module that keeps the error classes, for pickle.
    """

    def __init__(self, library: ModuleType, module: str) -> None:
        self.library: Any = library
        self.denied = self._error(
            "HttpDenied",
            NetworkDenied,
            "A request isn't granted. Not a TransportError: a retry would change nothing.",
            module,
        )
        self.revoked = self._error(
            "HttpRevoked", Revoked, "The host took the capability back, before the request or while it ran.", module
        )
        self.exceeded = self._error(
            "HttpLimitExceeded", LimitExceeded, "A request or its response reached a limit of the grant.", module
        )
        self._response: Any = type("Response", (GuardedResponse, self.library.Response), {"adapter": self})
        self._body: Any = type("Body", (GuardedBody, self.library.AsyncByteStream), {"__slots__": ()})
        self.transport: Any = type(
            "Transport", (_Transport, self.library.AsyncBaseTransport), {"__slots__": (), "adapter": self}
        )

    def _error(self, name: str, kind: type[Any], doc: str, module: str) -> Any:
        bases = (_WithRequest, kind, self.library.RequestError)
        return type(name, bases, {"__doc__": doc, "__module__": module, "__qualname__": name})

    async def send(self, service: HttpService, request: Any, *, whole_body: bool = False) -> Any:
        """Sends a request of the library and returns its response, the body unread. Raises the library's errors."""
        started = time.perf_counter()
        try:
            reply = await service.send(self.read_request(request, whole_body=whole_body))
        except _Flawed as flawed:
            raise self.error(await service.refuse_request(flawed.flaw), request) from None
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

        Every attribute may be a property that answers differently the second time, every value a subclass with methods
        of its own: what isn't exactly the expected type is refused.

        Raises RuntimeError for a synchronous stream.
        """
        method, url, stream = request.method, request.url, request.stream
        headers, extensions = request.headers, request.extensions
        library = self.library
        if type(method) is not str:
            raise _Flawed(RequestFlaw.METHOD)
        if type(url) is not library.URL or type(text := str(url)) is not str:
            raise _Flawed(RequestFlaw.URL)
        if type(headers) is not library.Headers:
            raise _Flawed(RequestFlaw.HEADERS)
        if type(extensions) is not dict:
            raise _Flawed(RequestFlaw.EXTENSIONS)
        body: bytes | AsyncIterable[bytes]
        if type(stream) is library.ByteStream:
            body = b"".join(stream)
            if type(body) is not bytes:
                raise _Flawed(RequestFlaw.BODY)
        elif isinstance(stream, AsyncIterable):
            body = stream
        else:
            raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")
        return HttpRequest(method, text, headers.raw, body, _timeouts(extensions.get("timeout")), whole_body)

    def error(self, error: Exception, request: Any) -> Exception:
        """Returns the library's error for one of a service's. `request` may be a function that builds it."""
        raised: Any
        base: type[Exception] = self.library.RequestError
        if isinstance(error, base):  # of another client of the plugin's, raised in a request body
            return error
        if isinstance(error, LimitExceeded):
            raised = self.exceeded(plugin=error.plugin, limit=error.limit, allowed=error.allowed, detail=error.detail)
        elif isinstance(error, NetworkDenied | Revoked):
            raised = error.rebuilt_as(self.revoked if isinstance(error, Revoked) else self.denied)
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


class _Flawed(Exception):
    def __init__(self, flaw: RequestFlaw) -> None:
        self.flaw = flaw


class _WithRequest:
    """Mixed into the library's errors: their `request`, built when it is first read."""

    _request: Any = None

    @property
    def request(self) -> Any:
        """The request that failed, as the library's own type."""
        if callable(self._request):
            self._request = self._request()
        if self._request is None:
            raise RuntimeError("The .request property has not been set.")
        return self._request

    @request.setter
    def request(self, request: Any) -> None:
        self._request = request


class _Transport:
    """The service as the library's transport, for library code that bypasses the methods of the guarded client."""

    __slots__ = ("_service",)
    adapter: LibraryAdapter

    def __init__(self, service: HttpService) -> None:
        _SERVICE.__set__(self, service)

    async def handle_async_request(self, request: Any) -> Any:
        """Sends the request through the service."""
        return await self.adapter.send(_SERVICE.__get__(self), request)

    async def aclose(self) -> None:
        """Closes the plugin's connections."""
        await _SERVICE.__get__(self).aclose()


_SERVICE = hidden_slot(_Transport, "_service")


def _timeouts(values: object) -> Timeouts:
    if values is None:
        return Timeouts()
    if type(values) is not dict:
        raise _Flawed(RequestFlaw.TIMEOUT)
    seconds = values.get("connect"), values.get("read"), values.get("write"), values.get("pool")
    for value in seconds:
        if value is not None and not (type(value) in (int, float) and 0 <= value < inf):
            raise _Flawed(RequestFlaw.TIMEOUT)
    return Timeouts(*seconds)
