"""The guarded client for httpx2, apart from `client` because httpx2 need not be installed."""

import httpx2

from nyx_stream.capabilities.http.client_mixin import GuardedClientMixin
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter

HTTPX2 = LibraryAdapter(httpx2, __name__)
HttpDenied, HttpRevoked, HttpLimitExceeded = HTTPX2.denied, HTTPX2.revoked, HTTPX2.exceeded


class GuardedHttpx2Client(GuardedClientMixin, httpx2.AsyncClient):
    """An `httpx2.AsyncClient` under a guard.

    Takes an `HttpService`, and those options of httpx2 that concern neither route, trust nor pool. Raises, beside
    httpx2's errors: `NetworkDenied`, `Revoked` and `LimitExceeded`, each also an `httpx2.RequestError`.
    """

    adapter = HTTPX2
