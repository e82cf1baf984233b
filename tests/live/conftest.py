"""The fixtures of the hosts and of the clients: leases are tested where they are used."""

from tests.capabilities.files.conftest import make_world, world
from tests.capabilities.http.conftest import kind
from tests.host.conftest import events, host, make

__all__ = ["events", "host", "kind", "make", "make_world", "world"]
