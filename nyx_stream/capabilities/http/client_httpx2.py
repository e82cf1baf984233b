"""The guarded client for httpx2."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from nyx_stream.capabilities.http.client_mixin import ClientMixin
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter, WithRequest
from nyx_stream.capabilities.http.response import GuardedBody, GuardedResponse
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked


class HttpDenied(WithRequest, NetworkDenied, httpx2.RequestError):
    """A request of the guarded client is not granted. Not a TransportError: to try again would change nothing."""


class HttpRevoked(WithRequest, Revoked, httpx2.RequestError):
    """The host took the capability back, before the request or while it ran."""


class HttpLimitExceeded(WithRequest, LimitExceeded, httpx2.RequestError):
    """A limit of the grant was reached by a request or its response."""


class Body(GuardedBody, httpx2.AsyncByteStream):
    """A response body for httpx2."""

    __slots__ = ()


class Response(GuardedResponse, httpx2.Response):
    """A response for httpx2."""


class Transport(httpx2.AsyncBaseTransport):
    """The gate as httpx2 knows transports; the client itself does not go through here."""

    __slots__ = ("_close", "_exchange")

    def __init__(
        self, exchange: Callable[[httpx2.Request], Awaitable[Any]], close: Callable[[], Awaitable[None]]
    ) -> None:
        self._exchange = exchange
        self._close = close

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Passes the request through the gate."""
        response: httpx2.Response = await self._exchange(request)
        return response

    async def aclose(self) -> None:
        """Closes the plugin's connections."""
        await self._close()


HTTPX2 = LibraryAdapter(httpx2, Body, Response, Transport, HttpDenied, HttpRevoked, HttpLimitExceeded)
Response.dialect = HTTPX2


class GuardedHttpx2Client(ClientMixin, httpx2.AsyncClient):
    """An `httpx2.AsyncClient` under a guard.

    Takes `guard`, `lease`, `network=…`, and those options of httpx2's own that choose no route, trust or pool.
    Raises, beside httpx2's errors: `NetworkDenied`, `Revoked` and `LimitExceeded`, each also an `httpx2.RequestError`.
    """

    dialect = HTTPX2
