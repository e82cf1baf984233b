"""A host with sealed plugins that do what a test says, and a server for them to talk to."""

import gc
import os

import pytest

from nyx_stream import PluginHost
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Server
from tests.conformance.capabilities.server import answer
from tests.conformance.machine import missing
from tests.plugin_fixtures import write_plugin

CODE = """
    import asyncio, contextlib, os, socket
    import anyio, httpx
    from nyx_stream.errors import *

    class Main(Plugin):
        @export
        async def run(self, code: str) -> object:
            names = {"self": self}
            source = "async def act(self):\\n" + "".join(f"    {line}\\n" for line in code.splitlines())
            exec(source, globals() | names, names)
            return await names["act"](self)
    """
PERMISSIONS = """
    connect = ["granted.example", "other.example"]
    write = ["$DATA"]
"""


def policy() -> SandboxPolicy:
    """Two hosts and the plugin's own directory."""
    return (
        SandboxPolicy.locked_down()
        .allow_connect_host("granted.example", "other.example")
        .allow_path_prefix("$DATA")
        .with_limits(connections=8, call_timeout="30s")
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """As everywhere, but one loop for a module: its host, and its zygote with it, live as long."""
    return "asyncio"


@pytest.fixture(scope="module")
async def server():
    """The server that every name leads to."""
    async with Server(answer) as server:
        yield server


@pytest.fixture(scope="module")
def recorded():
    """What the host records."""
    return []


@pytest.fixture
def events(recorded):
    """What the host recorded in this test."""
    recorded.clear()
    return recorded


@pytest.fixture(scope="module")
async def host(tmp_path_factory, recorded, server):
    """An entered host."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    data = tmp_path_factory.mktemp("data")
    async with PluginHost(audit=recorded.append, data_dir=data, network=NamedNetwork(server.port)) as host:
        yield host
    gc.collect()


@pytest.fixture
async def load(host, server, tmp_path):
    """Loads a plugin that runs code: `await (await load()).call("run", code=…)`."""
    server.requests.clear()

    async def load(name="p", given=None):
        folder = write_plugin(tmp_path / name, CODE, permissions=PERMISSIONS)
        return await host.load(folder, policy=given or policy(), isolation="process")

    yield load
    for name in list(host.plugins):
        await host.unload(name)


def descriptors() -> int:
    """How many this process holds."""
    return len(os.listdir("/proc/self/fd"))
