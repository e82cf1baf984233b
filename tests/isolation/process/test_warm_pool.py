"""The worker made ahead is sealed while it waits, used by the next plugin, replaced, and not used if it is dead."""

import asyncio
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from nyx_stream import PluginHost
from nyx_stream.isolation.process import bootstrap
from tests.plugin_fixtures import backend_of, run_of, until

CODE = """
    import os

    class Main(Plugin):
        @export
        async def pid(self) -> int: return os.getpid()
"""


async def waiting(host) -> int:
    """The pid of the worker that waits, once there is one."""
    pool = backend_of(host).launcher
    async with asyncio.timeout(20):
        await until(lambda: pool.waiting is not None)
        process = await pool.waiting.process()
        pid = process.started.result()
        await until(lambda: status(pid).get("Seccomp_filters") == "1")
    return pid


def status(pid: int) -> dict[str, str]:
    """proc_pid_status(5), by name."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("module", [name for name in bootstrap.LIBRARIES if name.startswith("nyx_")])
def test_every_module_of_ours_that_is_imported_ahead_exists(module):
    """A missing one is skipped without an error, and each worker would import its replacement on its own."""
    assert find_spec(module) is not None


async def test_the_next_plugin_gets_the_worker_that_waits(load, host):
    """Then another one is made."""
    await load(CODE)
    ahead = await waiting(host)
    second = await load(CODE, name="second")
    assert await second.call("pid") == ahead
    assert await waiting(host) != ahead


async def test_a_worker_that_waits_is_sealed_already(load, host):
    """It has no capabilities, can't gain privileges, and has a filter and a session of its own."""
    await load(CODE)
    ahead = await waiting(host)
    found = status(ahead)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert os.getsid(ahead) == ahead


async def test_sealing_ahead_does_not_change_the_report(load, host):
    """A worker that was sealed ahead reports the same layers, attempts and descriptors as one that wasn't."""
    first_plugin = await load(CODE, name="first")
    await waiting(host)
    second_plugin = await load(CODE, name="second")
    reports = [run_of(plugin).backend.report for plugin in (first_plugin, second_plugin)]
    for part in ("layers", "witness"):
        first, second = ([row.get("name") or row["act"] for row in report[part]] for report in reports)
        assert first == second
    states = [{layer["name"]: layer["state"] for layer in report["layers"]} for report in reports]
    assert states[0] == states[1]
    assert reports[1]["repeated"] is False
    assert reports[1]["descriptors"] == [0, 1, 2, 3]
    bounding = [layer["facts"]["bounding"] for layer in reports[1]["layers"] if layer["name"] == "capabilities"]
    assert bounding == ["0x0"] or os.geteuid() != 0


async def test_a_dead_worker_is_not_used(load, host):
    """If it was killed while it waited, the next plugin gets a new one."""
    await load(CODE)
    ahead = await waiting(host)
    slot = backend_of(host).launcher.waiting
    os.kill(ahead, signal.SIGKILL)
    async with asyncio.timeout(20):
        await until(lambda: slot.dead)
    second = await load(CODE, name="second")
    assert await second.call("pid") != ahead


async def test_a_worker_that_waits_ends_with_its_host(make, tmp_path):
    """Closing the host leaves no process."""
    async with PluginHost(data_dir=tmp_path / "data") as host:
        await host.load(make("p", CODE), isolation="process")
        process = psutil.Process(await waiting(host))
    assert not process.is_running()
