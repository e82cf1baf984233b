"""The HTTP capability: a real `httpx.AsyncClient` behind two gates, and the same for `httpx2` in `client_httpx2`."""

from nyx_stream.capabilities.http.client import GuardedClient
from nyx_stream.capabilities.http.network import Network

__all__ = ["GuardedClient", "Network"]
