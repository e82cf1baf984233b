"""Workers that are made without a fork, as on systems where one isn't safe: nothing else may differ.

The conformance suite runs over them too. These tests don't show that the rest of the level works on those systems.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from nyx_stream.errors import PluginCrashed, PluginLoadError
from nyx_stream.isolation.remote.wire.confinement import REQUIRED_LAYERS
from tests.conformance.machine import without_fork
from tests.isolation.process.test_sealing import CODE as INHERITANCE
from tests.isolation.process.test_supervision import CODE, wait_for_state


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every host here starts an interpreter for each worker."""
    without_fork(monkeypatch)


def children() -> set[int]:
    """The pids of this process's children."""
    return {child.pid for child in psutil.Process().children()}


async def test_a_worker_is_a_child_of_its_host_and_inherits_nothing(load, monkeypatch):
    """There is no zygote between them; descriptors, environment, session and directory are those of a forked worker."""
    before = children()
    monkeypatch.setenv("NYX_TEST_SECRET", "s3cret")
    held = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        plugin = await load(INHERITANCE, late="WORD = 'late'")
        found = await plugin.call("inherited")
    finally:
        os.close(held)
    assert children() - before == {plugin._record.run.backend.pid}
    assert found["descriptors"][:4] == [0, 1, 2, 3]
    assert len(found["descriptors"]) == 7
    assert found["environment"] == {"NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert (found["directory"], found["umask"], found["leader"], found["terminal"]) == ("/", 0o077, True, False)
    assert (found["blocked"], found["threads"], found["input"]) == (0, 1, True)
    assert await plugin.call("lazily") == "late"


async def test_it_is_sealed_as_ordered(load):
    """Every layer is in force, every attempt was refused, and memory is limited above what was used before."""
    plugin = await load(INHERITANCE)
    report = plugin._record.run.backend.report
    states = {layer["name"]: layer["state"] for layer in report["layers"]}
    assert {states[name] for name in REQUIRED_LAYERS} == {"active"}
    assert all(result["refused"] for result in report["witness"])
    assert await plugin.call("reads", path="/etc/passwd") == "PermissionError"


ENDS = {
    "signal": ("kill", {"number": signal.SIGKILL}, "its process was killed by SIGKILL"),
    "fault": ("fault", {}, "its process was killed by SIGSEGV"),
    "exit": ("exit", {"status": 3}, "its process ended with exit status 3"),
    "close": ("close", {}, "its process was killed by SIGKILL"),
    "garbage": ("send", {"data": b"GET / HTTP/1.1\r\n\r\n"}, "it broke the protocol and was killed: protocol version"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_is_reported_and_reaped(load, end):
    """The caller gets the reason, and no zombie is left."""
    method, arguments, text = ENDS[end]
    plugin = await load(CODE)
    pid = await plugin.call("pid")
    with pytest.raises(PluginCrashed) as caught:
        await plugin.call(method, **arguments)
    assert text in str(caught.value)
    await wait_for_state(plugin)
    assert not psutil.pid_exists(pid)


async def test_many_start_at_once_and_one_that_ends_while_it_starts_is_an_error(load):
    """The starts don't affect each other; a load that fails leaves no process running."""
    code = "import os, sys\nprint('no way', file=sys.stderr, flush=True)\nos._exit(5)"
    before = children()
    plugins = await asyncio.gather(*(load(CODE, name=f"p{number}") for number in range(4)))
    with pytest.raises(PluginLoadError, match=r"its process ended with exit status 5; the last lines.*\n    no way"):
        await load(code, name="broken")
    pids = {await plugin.call("pid") for plugin in plugins}
    assert children() - before == pids
    assert len(pids) == 4


def test_workers_die_with_their_host(make, tmp_path):
    """A host that is killed leaves no process behind, not even a worker that spins (Linux: by signal)."""
    folder = make("p", CODE)
    script = f"""
import asyncio
from nyx_stream import PluginHost
from nyx_stream.isolation.process import backend as process

async def main():
    process.FORK_IS_SAFE = False
    async with PluginHost(data_dir={str(tmp_path / "data")!r}) as host:
        plugin = await host.load({str(folder)!r}, isolation="process")
        print(await plugin.call("pid"), flush=True)
        await plugin.call("spin")

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as host:
        worker = psutil.Process(int(host.stdout.readline()))
        host.kill()
    assert psutil.wait_procs([worker], timeout=10)[1] == []


async def test_the_error_of_starting_an_interpreter_is_raised(load, monkeypatch):
    """Loading raises what the system reported."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(PluginLoadError, match=r"its process cannot be started: .*No such file"):
        await load(CODE)


async def test_a_system_without_descriptor_passing_is_refused(load, monkeypatch):
    """As on Windows: the level is refused before anything is started, and the error names what is missing."""
    monkeypatch.delattr(socket, "SCM_RIGHTS")
    with pytest.raises(PluginLoadError, match=r"it cannot run in another process here: .*SCM_RIGHTS"):
        await load(CODE)
