"""The connections of one plugin: httpcore2's pool, filled with our own connections."""

from typing import Any

import httpcore2

from nyx_stream.capabilities.http.connection import Connection
from nyx_stream.capabilities.http.dialling import Dialler


class _NoBackend(httpcore2.AsyncNetworkBackend):
    """Connects nowhere: the one way to the network is the dialler. Here is no Unix socket and no unchecked address."""

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("a guarded pool dials through its second gate only")

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("a guarded pool connects to no Unix socket")


class Pool(httpcore2.AsyncConnectionPool):
    """Hands out connections by origin and queues requests beyond `connections`. Has no proxy and no other backend."""

    def __init__(self, dialler: Dialler, connections: int) -> None:
        super().__init__(
            max_connections=connections, max_keepalive_connections=connections, network_backend=_NoBackend()
        )
        self._dialler = dialler

    def create_connection(self, origin: httpcore2.Origin) -> Connection:
        """A connection that dials through the second gate when it is first used."""
        return Connection(origin, self._dialler)

    async def _close_connections(self, closing: list[httpcore2.AsyncConnectionInterface]) -> None:
        # Called twice for each request, nearly always with nothing to close: the shield it would put up costs 12 µs.
        if closing:
            await super()._close_connections(closing)

    def abort(self) -> None:
        """Closes every connection at once, without waiting; exchanges under way fail."""
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.abort()
