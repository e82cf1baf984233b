"""The HTTP capability: a real `httpx.AsyncClient` behind two gates, and the same for `httpx2` in `client_httpx2`."""

from typing import TYPE_CHECKING, Any

from nyx_stream.capabilities.network import NetworkBackend

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.client import GuardedClient

__all__ = ["GuardedClient", "NetworkBackend"]


def __getattr__(name: str) -> Any:
    # A host makes its `NetworkBackend` before it knows whether a plugin will ask for HTTP: only the client loads httpx.
    if name != "GuardedClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nyx_stream.capabilities.http.client import GuardedClient

    return GuardedClient
