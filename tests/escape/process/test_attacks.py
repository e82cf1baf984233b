"""Attacks from inside a sealed plugin with the objects that its capabilities returned.

Each is refused, and recorded where the host decides; the allowed twin of each works. `tests/escape/sealed` has the
attacks that need nothing from the host.
"""

import ast
import gc
import os
from pathlib import Path

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Server
from tests.conformance.capabilities.server import answer
from tests.conformance.machine import missing

EXHAUSTING = ("without_end", "without_room")
"""Endings of the attacks that leave their worker without something."""

PLUGIN = Path(__file__).parent / "plugin"


def names() -> list[str]:
    """Every attack, read from the source of the plugin: only the plugin imports it."""
    trees = [ast.parse(path.read_text()) for path in sorted(PLUGIN.glob("by_*.py"))]
    return [
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and "attack(" in "".join(map(ast.unparse, node.decorator_list))
    ]


def status_of(process: int) -> dict[str, str]:
    """proc_pid_status(5) of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def policy() -> SandboxPolicy:
    """Grants less than the plugin requests."""
    return (
        SandboxPolicy.locked_down()
        .allow_connect_host("granted.example", "inside.example")
        .allow_path_prefix("$DATA")
        .allow_path_prefix("$PLUGIN")
        .allow_env("NYX_GRANTED")
        .with_limits(response_bytes="4MiB", connections=8, processes=20)
    )


@pytest.fixture(scope="module")
def anyio_backend():
    """As elsewhere, but with one loop for the module, because its host lives as long."""
    return "asyncio"


@pytest.fixture(scope="module")
def events():
    """What the host recorded."""
    return []


@pytest.fixture(scope="module")
async def attacker(tmp_path_factory, events):
    """The plugin in its worker, in a host that has secrets of its own."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    data = tmp_path_factory.mktemp("data")
    environment = pytest.MonkeyPatch()
    environment.setenv("NYX_SECRET", "hunter2")
    environment.setenv("NYX_GRANTED", "yes")
    os.makedirs(data / "attacker")
    os.symlink("/etc/passwd", data / "attacker" / "planted-link")
    os.mkfifo(data / "attacker" / "planted-fifo")
    async with Server(answer) as server:
        network = NamedNetwork(server.port, {"inside.example": [["10.1.2.3"]]})
        async with PluginHost(audit=events.append, data_dir=data, network=network) as host:
            yield await host.load(PLUGIN, policy=policy(), isolation="process")
    environment.undo()
    gc.collect()


@pytest.fixture
async def fresh(attacker, tmp_path):
    """Another plugin of the same code, alone in its own worker."""
    events = []
    async with PluginHost(audit=events.append, data_dir=tmp_path) as host:
        yield await host.load(PLUGIN, policy=policy(), isolation="process")


@pytest.mark.parametrize("name", [name for name in names() if not name.endswith(EXHAUSTING)])
async def test_it_is_refused_and_its_twin_works(attacker, events, name):
    """The attack is refused, and recorded if the host decided it; then its allowed twin works."""
    _, layer, answers = (await attacker.call("table"))[name]
    events.clear()
    refusal = await attacker.call("attempt", name=name)
    assert refusal.startswith(tuple(answers)), refusal
    denied = [event for event in events if not event.allowed]
    assert bool(denied) is (layer == "guard" and refusal.endswith("Denied")), denied
    assert {(event.plugin, event.layer) for event in denied} <= {("attacker", "guard")}
    assert (await attacker.call("twin", name=name)).startswith("it worked: ")


@pytest.mark.parametrize("name", [name for name in names() if name.endswith("without_end")])
async def test_a_plugin_exhausts_only_its_own_resources(attacker, fresh, name):
    """A plugin that uses up memory, descriptors or threads reaches the limit of its worker; its neighbour isn't
    affected."""
    _, _, answers = (await attacker.call("table"))[name]
    refusal = await fresh.call("attempt", name=name)
    assert refusal.startswith(tuple(answers)), refusal
    assert (await attacker.call("twin", name="read_outside")).startswith("it worked: ")


async def test_it_is_alone_in_its_process(fresh):
    """It has no thread from before it was sealed, no child, and no capability that a new program could regain."""
    process = await fresh.call("process")
    assert os.listdir(f"/proc/{process}/task") == [str(process)]
    status = status_of(process)
    assert (status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == ("0" * 16, "1", "2")


async def test_a_worker_with_a_full_descriptor_table_is_ended_alone(attacker, fresh):
    """A worker that fills its descriptor table and then has the host pass one more only harms itself."""
    with pytest.raises(PluginCrashed, match="the kernel truncated the descriptors"):
        await fresh.call("attempt", name="take_a_descriptor_without_room")
    assert (await attacker.call("twin", name="read_outside")).startswith("it worked: ")
