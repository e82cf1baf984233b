"""What looks at workers from time to time: each limit that does not hold is told once, by its name."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from nyx_stream.isolation.remote.host import resource_monitor as watch
from nyx_stream.isolation.remote.host.resource_monitor import ResourceMonitor, Watched, look_at
from tests.plugin_fixtures import until

MIB = 2**20

USES = {
    "nothing": "pass",
    "memory": "held = bytearray(b'x') * (64 * 2**20)",
    "open_files": "held = [open('/dev/null') for _ in range(40)]",
    "cpu_time": "while time.process_time() < 0.8: pass",
}


@contextlib.contextmanager
def using(code):
    """A process that has done something and then does nothing more."""
    program = f"import sys, time\n{code}\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


def watched(process, told, *, idle=True):
    """A worker with limits that a bare interpreter is below."""
    return Watched(
        name="p",
        process=process,
        memory=48 * MIB,
        descriptors=32,
        cpu_time=0.7,
        idle=lambda: idle,
        exceeded=lambda *what: told.append(what),
    )


@pytest.mark.parametrize("limit", USES)
def test_a_limit_that_does_not_hold_is_told(limit):
    """Resident memory, descriptors and processor time of a real process, each beside its own limit."""
    told = []
    with using(USES[limit]) as child:
        worker = watched(psutil.Process(child.pid), told)
        look_at(worker)
        assert worker.usage.memory > MIB
        assert worker.usage.descriptors >= 3
        assert worker.usage.cpu_time >= 0  # it is counted in ticks, and a bare start may take none
        if limit == "nothing":
            assert told == []
            return
        ((name, used, allowed),) = told
        assert name == limit
        assert used > allowed


def test_a_process_that_is_gone_is_passed_over():
    """Who ends a worker tells of it; the watch says nothing."""
    told = []
    with using("pass") as child:
        worker = watched(psutil.Process(child.pid), told)
    look_at(worker)
    assert told == []
    assert worker.usage is None


def measuring(cpu):
    """A process of which only the processor's share matters."""
    return SimpleNamespace(
        oneshot=contextlib.nullcontext,
        cpu_times=lambda: SimpleNamespace(user=0.1, system=0.0),
        memory_info=lambda: SimpleNamespace(rss=MIB),
        cpu_percent=lambda: cpu[0],
        num_fds=lambda: 7,
    )


def test_a_plugin_that_is_busy_with_no_call_under_way_is_named_once(caplog):
    """Not for what it does in a call, not again while it goes on, and anew when it begins anew."""
    cpu = [99.0]
    working = watched(measuring(cpu), [], idle=False)
    resting = watched(measuring(cpu), [])
    with caplog.at_level(logging.WARNING, logger="nyx.isolation"):
        for share in (99.0, 99.0, 5.0, 95.0):
            cpu[0] = share
            look_at(working)
            look_at(resting)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"plugin p keeps a processor busy ({share} %), and no call is under way" for share in ("99", "95")]


async def test_the_watch_looks_until_a_worker_is_removed(monkeypatch):
    """Every worker is looked at again and again, a removed one never more; without any the task ends."""
    monkeypatch.setattr(watch, "PERIOD", 0.001)
    looks = []
    monkeypatch.setattr(watch, "look_at", lambda worker: looks.append(worker.name))
    looking = ResourceMonitor()
    workers = [watched(SimpleNamespace(pid=pid), []) for pid in range(25)]
    for worker in workers:
        worker.name = f"p{worker.process.pid}"
        looking.add(worker)
    task = looking._task
    async with asyncio.timeout(20):
        await until(lambda: len(looks) >= 50)
        assert set(looks) == {worker.name for worker in workers}
        for worker in workers[1:]:
            looking.remove(worker.process.pid)
        looks.clear()
        await until(lambda: len(looks) >= 2)
        assert set(looks) == {"p0"}
        looking.remove(0)
        looking.remove(0)
        await asyncio.wait((task,))
        looks.clear()
        looking.add(workers[3])
        await until(lambda: looks == ["p3"] or len(looks) > 1)
    await looking.aclose()
    assert looking._task is None
