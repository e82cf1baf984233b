"""A host and plugins in sealed processes, where this machine can seal one."""

import gc
import os

import pytest

from nyx_stream import PluginHost
from tests.conformance.machine import missing
from tests.plugin_fixtures import write_plugin


@pytest.fixture
def events():
    """What the host recorded."""
    return []


@pytest.fixture
async def host(tmp_path, events):
    """An entered host without plugins, which must leave no descriptor behind."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    before = sorted(os.listdir("/proc/self/fd"))
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        yield host
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def make(tmp_path):
    """Writes a plugin folder: `make("weather", code, …)`."""

    def write(name, code, **more):
        return write_plugin(tmp_path / "plugins" / name, code, **more)

    return write


@pytest.fixture
def load(host, make):
    """Writes a plugin and loads it into a sealed process."""

    async def load(code, *, policy=None, on_fail="disable", name="p", **more):
        return await host.load(make(name, code, **more), policy=policy, isolation="process", on_fail=on_fail)

    return load
