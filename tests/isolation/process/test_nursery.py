"""A process forked from the nursery is the same as one that an interpreter starts: other tests rely on it."""

import os
import subprocess
import sys

import psutil
import pytest

from nyx_stream.isolation.process.zygote_client import ZygoteClient
from tests.conformance.machine import without_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a nursery is a Linux process")

CODE = """
    import os, signal, sys, threading

    class Main(Plugin):
        @export
        async def facts(self) -> dict[str, object]:
            return {
                "path": [path for path in sys.path],
                "flags": str(sys.flags),
                "modules": sorted(name for name in sys.modules if name.partition(".")[0] in ("nyx_core", "nyx_stream")),
                "environment": dict(os.environ),
                "threads": threading.active_count(),
                "main": threading.current_thread() is threading.main_thread(),
                "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
                "streams": [(stream.encoding, stream.line_buffering) for stream in (sys.stdout, sys.stderr)],
            }
    """


def facts_of(pid):
    """What the system reports about a process, except for its numbers."""
    process = psutil.Process(pid)
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip().partition(":\t")[::2] for line in file)
    return {
        "parent": process.ppid(),
        "leads": (os.getsid(pid) == pid, os.getpgid(pid) == pid),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "folder": os.readlink(f"/proc/{pid}/cwd"),
        "threads": process.num_threads(),
        **{name: status[name] for name in ("SigIgn", "SigCgt", "SigBlk", "Uid", "CapEff", "NoNewPrivs", "Seccomp")},
    }


@pytest.mark.parametrize("made", ["fork", "fresh"])
async def test_a_worker_is_the_same(nursery, load, host, made, monkeypatch, request):
    """Its parent, session, descriptors, signals and modules are; so is its zygote, whose modules the worker has."""
    if made == "fresh":
        without_fork(monkeypatch)
    facts = []
    for name in ("started", "forked"):
        if name == "forked":
            request.getfixturevalue("interpreters")
            await host._levels.aclose()
            host._levels.open()
        plugin = await load(CODE, name=name)
        launcher = host._levels.get("p", "process").processes
        zygote = [facts_of(launcher.pid)] if isinstance(launcher, ZygoteClient) else []
        worker = facts_of(plugin._entry.level.pid)
        if made == "fork":
            assert worker.pop("parent") == launcher.pid
        facts.append((*zygote, worker, await plugin.call("facts")))
        await host.unload(name)
    started, forked = facts
    assert started == forked


async def test_its_exit_status_can_be_waited_for(load, host, interpreters):
    """As that of any child."""
    await load(CODE)
    zygote = host._levels.get("p", "process").processes._zygote
    assert isinstance(zygote._process, subprocess.Popen)
    assert os.getpid() == psutil.Process(zygote.pid).ppid()
    os.kill(zygote.pid, 9)
    assert zygote._process.wait() == -9
