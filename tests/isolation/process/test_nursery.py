"""What the tests fork from a nursery is what a start of an interpreter makes: the other rooms rely on it."""

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


def seen(pid):
    """What the system says of a process, but for its numbers."""
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
    """Its parent, session, descriptors, signals and modules; so is its zygote, whose modules the worker has."""
    if made == "fresh":
        without_fork(monkeypatch)
    facts = []
    for name in ("started", "forked"):
        if name == "forked":
            request.getfixturevalue("interpreters")
            await host._backends.aclose()
            host._backends.open()
        plugin = await load(CODE, name=name)
        launcher = host._backends.get("p", "process")._launcher
        zygote = [seen(launcher.pid)] if isinstance(launcher, ZygoteClient) else []
        worker = seen(plugin._record.run.backend._pid)
        if made == "fork":
            assert worker.pop("parent") == launcher.pid
        facts.append((*zygote, worker, await plugin.call("facts")))
        await host.unload(name)
    started, forked = facts
    assert started == forked


async def test_it_is_a_child_that_ends_as_one(load, host, interpreters):
    """Its status can be waited for, as that of any child."""
    await load(CODE)
    zygote = host._backends.get("p", "process")._launcher._zygote
    assert isinstance(zygote._process, subprocess.Popen)
    assert os.getpid() == psutil.Process(zygote.pid).ppid()
    os.kill(zygote.pid, 9)
    assert zygote._process.wait() == -9
