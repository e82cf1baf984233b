"""The resource monitor reports each exceeded limit once, by its name."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from nyx_stream.isolation.remote.host import resource_monitor
from nyx_stream.isolation.remote.host.resource_monitor import MonitoredWorker, ResourceMonitor, check, measure
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
    """A process that has done something and is idle now."""
    program = f"import sys, time\n{code}\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


def monitored(process, exceeded, *, idle=True):
    """A worker with limits that a bare interpreter stays below."""
    return MonitoredWorker(
        name="p",
        process=process,
        memory=48 * MIB,
        descriptors=32,
        cpu_seconds=0.7,
        idle=lambda: idle,
        exceeded=lambda *limit: exceeded.append(limit),
    )


@pytest.mark.parametrize("limit", USES)
def test_an_exceeded_limit_is_reported(limit):
    """Resident memory, descriptors and processor time of a real process, each against its own limit."""
    exceeded = []
    with using(USES[limit]) as child:
        worker = monitored(psutil.Process(child.pid), exceeded)
        check(worker)
        usage = measure(child.pid)
        assert usage.memory > MIB
        assert usage.cpu_seconds >= 0  # it is counted in ticks, and a bare start may take none
        if limit == "nothing":
            assert exceeded == []
            return
        ((name, used, allowed),) = exceeded
        assert name == limit
        assert used > allowed


def test_a_process_that_has_ended_is_skipped():
    """The monitor reports nothing about it."""
    exceeded = []
    with using("pass") as child:
        worker = monitored(psutil.Process(child.pid), exceeded)
    check(worker)
    assert exceeded == []
    assert measure(child.pid) is None


def process_using(cpu):
    """A process of which only the processor's share matters."""
    return SimpleNamespace(
        oneshot=contextlib.nullcontext,
        cpu_times=lambda: SimpleNamespace(user=0.1, system=0.0),
        memory_info=lambda: SimpleNamespace(rss=MIB),
        cpu_percent=lambda: cpu[0],
        num_fds=lambda: 7,
    )


def test_a_plugin_that_is_busy_without_a_call_is_reported_once(caplog):
    """Not during a call, not again while it continues, and again when it starts again."""
    cpu = [99.0]
    working = monitored(process_using(cpu), [], idle=False)
    resting = monitored(process_using(cpu), [])
    with caplog.at_level(logging.WARNING, logger="nyx.isolation"):
        for share in (99.0, 99.0, 5.0, 95.0):
            cpu[0] = share
            check(working)
            check(resting)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"plugin p keeps a processor busy ({share} %), and no call is under way" for share in ("99", "95")]


async def test_the_monitor_runs_until_all_workers_are_removed(monkeypatch):
    """It checks every worker repeatedly, and a removed one no more; without workers its task ends."""
    monkeypatch.setattr(resource_monitor, "PERIOD", 0.001)
    checked = []
    monkeypatch.setattr(resource_monitor, "check", lambda worker: checked.append(worker.name))
    monitor = ResourceMonitor()
    workers = [monitored(SimpleNamespace(pid=pid), []) for pid in range(25)]
    for worker in workers:
        worker.name = f"p{worker.process.pid}"
        monitor.add(worker)
    task = monitor._task
    async with asyncio.timeout(20):
        await until(lambda: len(checked) >= 50)
        assert set(checked) == {worker.name for worker in workers}
        for worker in workers[1:]:
            monitor.remove(worker.process.pid)
        checked.clear()
        await until(lambda: len(checked) >= 2)
        assert set(checked) == {"p0"}
        monitor.remove(0)
        monitor.remove(0)
        await asyncio.wait((task,))
        checked.clear()
        monitor.add(workers[3])
        await until(lambda: checked == ["p3"] or len(checked) > 1)
    await monitor.aclose()
    assert monitor._task is None
