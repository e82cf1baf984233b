"""Fixtures for tests of plugins that change while they run: files, HTTP servers, and a plugin in several versions."""

import pytest

from tests.capabilities.files.conftest import make_world, world
from tests.capabilities.http.conftest import kind
from tests.capabilities.http.loopback import Server, reply
from tests.runtime import versions

__all__ = ["kind", "make_world", "world"]


@pytest.fixture
async def server():
    """An HTTP server that answers every request with a page."""
    async with Server(lambda asked: reply(200, b"page")) as server:
        yield server


@pytest.fixture
def release(make, level):
    """Writes the next version of the plugin `p`: `release(2)`."""

    def release(number, setup="pass", **more):
        return make("p", versions.code(number, setup), permissions=versions.PERMISSIONS, **more)

    return release


@pytest.fixture
def first(host, release, level):
    """Loads version 1 of the plugin `p`."""

    async def first(*, on_fail="disable", **more):
        return await host.load(release(1, **more), policy=versions.POLICY, isolation=level, on_fail=on_fail)

    return first


@pytest.fixture
def allow(tmp_path):
    """Ends the calls that wait for a file: `allow("go")`."""
    return lambda name: (tmp_path / "data" / "p" / name).write_text("")
