"""The connections of one plugin: httpcore2's pool, filled with our own connections."""

import httpcore2

from nyx_stream.capabilities.http.connection import Connection
from nyx_stream.capabilities.http.dialling import Dialler


class Pool(httpcore2.AsyncConnectionPool):
    """Hands out connections by origin and queues requests beyond `connections`. It has no proxy and no other backend."""

    def __init__(self, dialler: Dialler, connections: int) -> None:
        super().__init__(max_connections=connections, max_keepalive_connections=connections)
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
