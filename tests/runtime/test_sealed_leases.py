"""The leases of a sealed plugin: the host enforces them as for an inline one."""

import asyncio
import sys

import pytest

from nyx_stream.errors import Revoked
from tests.plugin_fixtures import until
from tests.runtime.test_host_leases import CODE, PERMISSIONS, policy, server

__all__ = ["server"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are sealed on Linux")


async def test_terms_and_revocations_reach_a_worker(host, make, server):
    """Budgets are counted, an expired lease ends operations in flight, and a hard revocation outlasts the worker."""
    granted = policy().with_lease("http", requests=2)
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=granted, isolation="process")
    assert await plugin.call("fetch", url=server.url) == "page"
    await plugin.call("save", name="a")
    await plugin.lease("files", opens=1)
    assert await plugin.call("read", name="a") == "kept"
    with pytest.raises(Revoked, match="used up: opens 1"):
        await plugin.call("read", name="a")
    task = asyncio.create_task(plugin.call("fetch", url=f"{server.url}/wait"))
    await until(lambda: len(server.requests) == 2)
    await plugin.lease("http", ttl="20ms")
    with pytest.raises(Revoked, match="expired"):
        await task
    await plugin.revoke("files", reason="incident 42", hard=True)
    with pytest.raises(Revoked, match="incident 42"):
        await plugin.call("read", name="a")
    with pytest.raises(Revoked, match="expired"):
        await plugin.call("fetch", url=server.url)
