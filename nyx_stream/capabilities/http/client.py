"""The guarded client: the `httpx.AsyncClient` that a plugin holds as `self.http`, the same class at every level."""

from typing import TYPE_CHECKING, Any

import httpx

from nyx_stream.capabilities.http.client_mixin import SERVICE, GuardedClientMixin
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.client_httpx2 import GuardedHttpx2Client

HTTPX = LibraryAdapter(httpx, __name__)
HttpDenied, HttpRevoked, HttpLimitExceeded = HTTPX.denied, HTTPX.revoked, HTTPX.exceeded


class GuardedClient(GuardedClientMixin, httpx.AsyncClient):
    """An `httpx.AsyncClient` under a guard.

    Takes an `HttpService`, and those options of httpx that concern neither route, trust nor pool. Raises, beside
    httpx's errors: `NetworkDenied`, `Revoked` and `LimitExceeded`, each also an `httpx.RequestError`.
    """

    adapter = HTTPX

    def as_httpx2(self, **choices: Any) -> "GuardedHttpx2Client":
        """Returns a client for SDKs that need an `httpx2.AsyncClient`: same service and connections, own cookies.

        Closing it leaves this one open. Raises ImportError if httpx2 is not installed.
        """
        from nyx_stream.capabilities.http.client_httpx2 import GuardedHttpx2Client

        return GuardedHttpx2Client(SERVICE.__get__(self), shares_service=True, **choices)
