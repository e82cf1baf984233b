"""Both libraries: what holds for the guarded `httpx.AsyncClient` holds for the guarded `httpx2.AsyncClient`."""

import ssl
from typing import Any

import pytest
import trustme

from nyx_stream.capabilities.http import GuardedClient


@pytest.fixture(params=["httpx", "httpx2"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The guarded client class of each library."""
    if request.param == "httpx":
        return GuardedClient
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    from nyx_stream.capabilities.http.client_httpx2 import GuardedHttpx2Client

    return GuardedHttpx2Client


class Authority:
    """A certificate authority of this run, trusted by the clients that it makes contexts for."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._servers: dict[tuple[str, ...], ssl.SSLContext] = {}

    def server(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for `names`."""
        if names not in self._servers:
            self._servers[names] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(*names).configure_cert(self._servers[names])
        return self._servers[names]

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context


@pytest.fixture(scope="session")
def authority() -> Authority:
    """One authority for the whole run: keys are slow to make."""
    return Authority()
