"""Workers that are made without a fork, as on systems where one is not safe: nothing else may be different.

The conformance suite runs over them too. That the rest of the level works on those systems, nothing here shows.
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
from nyx_stream.isolation.process import seal as sealing
from tests.conformance.machine import without_fork
from tests.isolation.process.test_sealing import CODE as INHERITANCE
from tests.isolation.process.test_supervision import CODE, gone


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every host here starts an interpreter for each worker."""
    without_fork(monkeypatch)


def children() -> set[int]:
    """The pids of this process's children."""
    return {child.pid for child in psutil.Process().children()}


async def test_a_worker_is_a_child_of_its_host_and_inherits_nothing(load, monkeypatch):
    """No zygote between them; descriptors, environment, session and directory as of one that is forked."""
    before = children()
    monkeypatch.setenv("NYX_TEST_SECRET", "s3cret")
    held = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        plugin = await load(INHERITANCE, late="WORD = 'late'")
        found = await plugin.call("inherited")
    finally:
        os.close(held)
    assert children() - before == {plugin._record.run.backend._pid}
    assert found["descriptors"][:4] == [0, 1, 2, 3]
    assert len(found["descriptors"]) == 7
    assert found["environment"] == {"NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert (found["directory"], found["umask"], found["leader"], found["terminal"]) == ("/", 0o077, True, False)
    assert (found["blocked"], found["threads"], found["input"]) == (0, 1, True)
    assert await plugin.call("lazily") == "late"


async def test_it_is_sealed_as_ordered(load):
    """Every layer in force, every witness refused, the memory limit above what this very process used before."""
    plugin = await load(INHERITANCE)
    report = plugin._record.run.backend.report
    states = {layer["name"]: layer["state"] for layer in report["layers"]}
    assert {states[name] for name in sealing.REQUIRED} == {"active"}
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
async def test_every_end_is_told_and_reaped(load, end):
    """The caller gets what it was, and no zombie is left."""
    method, arguments, text = ENDS[end]
    plugin = await load(CODE)
    pid = await plugin.call("pid")
    with pytest.raises(PluginCrashed) as caught:
        await plugin.call(method, **arguments)
    assert text in str(caught.value)
    await gone(plugin)
    assert not psutil.pid_exists(pid)


async def test_many_start_at_once_and_one_that_ends_while_it_starts_is_an_error(load):
    """Each start is its own; a load that fails leaves nothing running."""
    code = "import os, sys\nprint('no way', file=sys.stderr, flush=True)\nos._exit(5)"
    before = children()
    plugins = await asyncio.gather(*(load(CODE, name=f"p{number}") for number in range(4)))
    with pytest.raises(PluginLoadError, match=r"its process ended with exit status 5; the last lines.*\n    no way"):
        await load(code, name="broken")
    pids = {await plugin.call("pid") for plugin in plugins}
    assert children() - before == pids
    assert len(pids) == 4


def test_workers_die_with_their_host(make, tmp_path):
    """A host that is killed outright leaves no process behind, not even a worker that spins (Linux: by signal)."""
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


async def test_no_interpreter_can_be_started(load, monkeypatch):
    """What the system answers is the error of the load."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(PluginLoadError, match=r"no process can be made for it: .*No such file"):
        await load(CODE)


async def test_a_system_without_the_channel_says_what_it_lacks(load, monkeypatch):
    """Windows: no descriptor can be passed there, so the level is refused, by name, before anything is started."""
    monkeypatch.delattr(socket, "SCM_RIGHTS")
    with pytest.raises(PluginLoadError, match=r'isolation "process" is not to be had here: .*SCM_RIGHTS'):
        await load(CODE)
