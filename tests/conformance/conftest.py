"""Every check here runs at every isolation level: a plugin must not be able to tell one from another."""

import gc

import pytest

from nyx_stream import PluginHost
from tests.conformance.machine import missing, without_fork
from tests.conformance.nursery import interpreters, ready
from tests.host.plugin_folder import write_plugin

__all__ = ["interpreters", "ready"]

LEVELS = ("inline", "process", "fresh")
"""`fresh` is level `process` as it is where a fork is not safe: each worker an interpreter of its own."""


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """The isolation level under test."""
    if request.param == "inline":
        return "inline"
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    if request.param == "fresh":
        without_fork(monkeypatch)
    return "process"


@pytest.fixture
def events():
    """What the host recorded."""
    return []


@pytest.fixture
async def host(tmp_path, events):
    """An entered host without plugins."""
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        yield host
    gc.collect()


@pytest.fixture
def make(tmp_path):
    """Writes a plugin folder: `make("weather", code, …)`."""

    def write(name, code, **more):
        return write_plugin(tmp_path / "plugins" / name, code, **more)

    return write


@pytest.fixture
def load(host, make, level):
    """Writes a plugin and loads it at the level under test."""

    async def load(code, *, policy=None, on_fail="disable", name="p", **more):
        return await host.load(make(name, code, **more), policy=policy, isolation=level, on_fail=on_fail)

    return load
