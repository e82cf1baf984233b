"""Worker side of `self.http.as_httpx2()`."""

from nyx_stream.capabilities.http.client_httpx2 import GuardedHttpx2Client
from nyx_stream.isolation.remote.worker.http import Remote


class RemoteHttpx2Client(Remote, GuardedHttpx2Client):
    """An `httpx2.AsyncClient` whose requests are made by the host."""
