"""Worker side of `self.http.as_httpx2()`."""

from typing import Any

from nyx_stream.capabilities.http.client_httpx2 import HTTPX2, GuardedHttpx2Client
from nyx_stream.isolation.process.worker_http import Remote, RemoteGate


class RemoteHttpx2Client(Remote, GuardedHttpx2Client):
    """An `httpx2.AsyncClient` whose requests are made by the host."""

    @classmethod
    def at(cls, remote: RemoteGate, choices: dict[str, Any]) -> "RemoteHttpx2Client":
        """A client of this gate."""
        client = cls.through(remote.passage(HTTPX2), **choices)
        client._remote = remote
        return client
