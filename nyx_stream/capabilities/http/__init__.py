"""The HTTP capability: a real `httpx.AsyncClient` whose every request is decided and sent by an `HttpService`."""

from typing import TYPE_CHECKING, Any

from nyx_stream.capabilities.network import NetworkBackend

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.client import GuardedClient

__all__ = ["GuardedClient", "NetworkBackend"]


def __getattr__(name: str) -> Any:
    # A host makes its `NetworkBackend` before it knows whether a plugin needs HTTP: only the client imports httpx.
    if name != "GuardedClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nyx_stream.capabilities.http.client import GuardedClient

    return GuardedClient
