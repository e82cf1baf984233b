"""The guarded client for httpx: what a plugin holds as `self.http`."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx

from nyx_stream.capabilities.http.client_mixin import ClientMixin
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter, WithRequest
from nyx_stream.capabilities.http.response import GuardedBody, GuardedResponse
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.client_httpx2 import GuardedHttpx2Client


class HttpDenied(WithRequest, NetworkDenied, httpx.RequestError):
    """A request of the guarded client is not granted. Not a TransportError: to try again would change nothing."""


class HttpRevoked(WithRequest, Revoked, httpx.RequestError):
    """The host took the capability back, before the request or while it ran."""


class HttpLimitExceeded(WithRequest, LimitExceeded, httpx.RequestError):
    """A limit of the grant was reached by a request or its response."""


class Body(GuardedBody, httpx.AsyncByteStream):
    """A response body for httpx."""

    __slots__ = ()


class Response(GuardedResponse, httpx.Response):
    """A response for httpx."""


class Transport(httpx.AsyncBaseTransport):
    """The gate as httpx knows transports; the client itself does not go through here."""

    __slots__ = ("_close", "_exchange")

    def __init__(
        self, exchange: Callable[[httpx.Request], Awaitable[Any]], close: Callable[[], Awaitable[None]]
    ) -> None:
        self._exchange = exchange
        self._close = close

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Passes the request through the gate."""
        response: httpx.Response = await self._exchange(request)
        return response

    async def aclose(self) -> None:
        """Closes the plugin's connections."""
        await self._close()


HTTPX = LibraryAdapter(httpx, Body, Response, Transport, HttpDenied, HttpRevoked, HttpLimitExceeded)
Response.dialect = HTTPX


class GuardedClient(ClientMixin, httpx.AsyncClient):
    """An `httpx.AsyncClient` under a guard.

    Takes `guard`, `lease`, `network=…`, and those options of httpx's own that choose no route, trust or pool.
    Raises, beside httpx's errors: `NetworkDenied`, `Revoked` and `LimitExceeded`, each also an `httpx.RequestError`.
    """

    dialect = HTTPX

    def as_httpx2(self, **choices: Any) -> "GuardedHttpx2Client":
        """A client for SDKs that ask for an `httpx2.AsyncClient`: the same guard, lease and connections, own cookies.

        Closing it leaves this one open. Raises ImportError if httpx2 is not installed.
        """
        from nyx_stream.capabilities.http.client_httpx2 import HTTPX2, GuardedHttpx2Client

        return GuardedHttpx2Client.through(self._gate.turned(HTTPX2), **choices)
