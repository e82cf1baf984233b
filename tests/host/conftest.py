"""A host for each test, and plugin folders written on the spot."""

import gc

import pytest

from nyx_stream import PluginHost
from tests.host.plugin_folder import write_plugin


@pytest.fixture
def make(tmp_path):
    """Writes a plugin folder: `make("weather", code, …)`."""

    def write(name, code, **more):
        return write_plugin(tmp_path / "plugins" / name, code, **more)

    return write


@pytest.fixture
def events():
    """What the host recorded."""
    return []


@pytest.fixture
async def host(tmp_path, events):
    """An entered host without plugins."""
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        yield host
    # A coroutine or task that was left behind warns when it is freed: in this test, not in a later one.
    gc.collect()
