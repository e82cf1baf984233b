"""Event-loop lag of the host while a sealed plugin floods it, next to the same loop when idle.

Another process writes to a socket of the host every millisecond, and the benchmark measures how long after the write
the host's loop runs the reader. (A timer is too coarse: `epoll_wait` counts milliseconds.) Each round times the idle
loop and then each flood for the same time, and takes the median and the 99th percentile of the round. So delays of a
busy machine are in both figures.

The figures include the time that the host waits for a processor while worker, server and others use all of them. In the
last rows the host has its own processor: its workers (`worker_cpus`), the server and the probe use the others. A host
started with `chrt -R -f 10` doesn't wait either, but Linux then stops it for 50 ms of each second in which it never
slept, unless `kernel.sched_rt_runtime_us` is -1 (sched(7)).
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any

from benchmarks.http_server import serving
from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.timing import Budget
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.plugin_sandbox import SandboxPolicy

_STAMP = Struct("=d")
_PROBE = """
import socket, struct, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
try:
    while True:
        time.sleep(1e-3)
        end.send(struct.pack("=d", time.monotonic()))
except OSError:
    pass  # the host has closed the socket
"""
_DRAIN = 0.1
"""Seconds after a flood in which its remaining data drains."""

_CODE = """
import asyncio
import time
from collections.abc import AsyncIterator

from nyx_stream import Plugin, export

MIB = "x" * 2**20


class Flood(Plugin):
    @export
    async def spin(self) -> None:
        for _ in self._for_a_while():
            pass

    @export
    async def log_records(self) -> None:
        for number in self._for_a_while():
            self.log.warning("record %d of a plugin that has a lot to say", number)
            if not number % 100:
                await asyncio.sleep(0)

    @export
    async def prints(self) -> None:
        for number in self._for_a_while():
            print("line", number, "of a plugin that has a lot to say")

    @export
    async def asks(self) -> None:
        async def ask() -> None:
            for _ in self._for_a_while():
                await self.files.exists("nothing")

        await asyncio.gather(*(ask() for _ in range(64)))

    @export
    async def items(self) -> AsyncIterator[str]:
        while True:
            yield MIB

    @export
    async def download(self, url: str) -> None:
        async with self.http.stream("GET", url) as response:
            async for _ in response.aiter_bytes():
                pass

    def _for_a_while(self):
        end, number = time.monotonic() + 0.9 * SECONDS, 0
        while time.monotonic() < end:
            number += 1
            yield number
"""
_MANIFEST = """
id = "flood"
version = "1.0.0"
entry = "bench_plugin:Flood"
[permissions]
connect = ["127.0.0.1"]
write = ["$DATA"]
[limits]
call_timeout = "10min"
response_bytes = "64GiB"
"""
_FLOODS = {
    "spin": "spins",
    "log_records": "floods the log",
    "prints": "floods its standard output",
    "asks": "has 64 requests to a capability under way",
    "items": "answers with a stream of 1 MiB items",
    "download": "reads an endless response through the broker",
}
_BUSY = "the machine is busy: the host waits for a processor, which it did not when idle"
_REASONS = {
    "asks": "requests run in threads next to the loop, which waits for the interpreter lock",
    "items": "one iteration of the loop receives 64 KiB and also parses JSON for 30 to 80 µs",
    "download": "one iteration of the loop reads and sends 16 KiB, while worker and server each need a processor",
}
_CLAIM = "how late the host's loop is while a worker {}, {}, against idle"
_OWN_PROCESSOR = "{}, the host with a processor to itself"
_STREAMS = ("items", "download")
_Late = dict[str, list[list[float]]]


def run(budget: Budget) -> Iterator[Result]:
    seconds, rounds = (0.25, 3) if budget.quick else (1.0, 11)
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}/{2**40}"
        try:
            late = asyncio.run(_measured(_FLOODS, rounds, seconds, url))
        except PluginError as error:
            yield from _unmeasured(_FLOODS, str(error))
            return
        yield from _rows(late, _FLOODS, _REASONS)
        there = {name: _OWN_PROCESSOR.format(_FLOODS[name]) for name in _STREAMS}
        with _own_processor(server.pid) as others:
            if others:
                late = asyncio.run(_measured(there, rounds, seconds, url, others))
                yield from _rows(late, there, {})
            else:
                yield from _unmeasured(there, "this machine has one processor")


def _rows(late: _Late, floods: dict[str, str], reasons: dict[str, str]) -> Iterator[Row]:
    for flood, what in floods.items():
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            guarded, idle = (
                Measure(which, tuple(_share(times, share) for times in late[which])) for which in (flood, "idle")
            )
            yield Row(_CLAIM.format(what, name), guarded, idle, Target("ratio", 2), reasons.get(flood, _BUSY))


def _unmeasured(floods: dict[str, str], reason: str) -> Iterator[Row]:
    for what in floods.values():
        yield Row(_CLAIM.format(what, "p99"), target=Target("ratio", 2), reason=reason)


@contextmanager
def _own_processor(server: int) -> Iterator[Collection[int]]:
    """Binds this thread to one processor and the server to the others. Yields the others, if any."""
    own, *others = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
    if not others:
        yield others
        return
    os.sched_setaffinity(server, others)
    os.sched_setaffinity(0, (own,))
    try:
        yield others
    finally:
        os.sched_setaffinity(0, (own, *others))


async def _measured(
    floods: Collection[str], rounds: int, seconds: float, url: str, cpus: Collection[int] | None = None
) -> _Late:
    with tempfile.TemporaryDirectory() as folder:
        async with PluginHost(data_dir=f"{folder}/data", worker_cpus=cpus) as host:
            plugin = await _load(host, folder, seconds)
            with _probed(cpus) as stamps:
                return await _rounds(plugin, floods, rounds, seconds, url, stamps)


async def _load(host: PluginHost, folder: str, seconds: float) -> Any:
    path = Path(folder) / "flood"
    path.mkdir()
    (path / "plugin.toml").write_text(_MANIFEST, encoding="utf-8")
    (path / "bench_plugin.py").write_text(_CODE.replace("SECONDS", f"{seconds}"), encoding="utf-8")
    policy = SandboxPolicy.locked_down().allow_connect_host("127.0.0.1").allow_path_prefix("$DATA")
    limits = {"call_timeout": "10min", "response_bytes": "64GiB"}
    return await host.load(path, policy=policy.with_limits(**limits), isolation="process")


async def _rounds(
    plugin: Any, floods: Collection[str], rounds: int, seconds: float, url: str, stamps: list[float]
) -> _Late:
    async def items() -> None:
        async for _ in plugin.stream("items"):
            pass

    acts: dict[str, Callable[[], Awaitable[None]]] = {
        "idle": lambda: asyncio.sleep(seconds),
        **{name: partial(plugin.call, name) for name in _FLOODS},
        "items": items,
        "download": partial(plugin.call, "download", url=url),
    }
    late: _Late = {name: [] for name in ("idle", *floods)}
    with suppress(TimeoutError):  # creates everything that is created on first use
        async with asyncio.timeout(seconds):
            await acts["download"]()
    for _ in range(rounds):
        for name in late:
            stamps.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await acts[name]()
            late[name].append(sorted(stamps))
            await asyncio.sleep(_DRAIN)
    return late


@contextmanager
def _probed(cpus: Collection[int] | None) -> Iterator[list[float]]:
    """Runs a probe in another process, on the processors `cpus` or on any.

    Yields the list that collects the seconds from each write of the probe to its reading.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    late: list[float] = []

    def read_probe() -> None:
        data = ours.recv(2**16)
        now = time.monotonic()
        late.extend(now - sent for (sent,) in _STAMP.iter_unpack(data))

    ours.setblocking(False)
    with subprocess.Popen([sys.executable, "-c", _PROBE, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as probe:
        theirs.close()
        if cpus is not None and sys.platform == "linux":
            os.sched_setaffinity(probe.pid, cpus)
        loop.add_reader(ours, read_probe)
        try:
            yield late
        finally:
            loop.remove_reader(ours)
            ours.close()


def _share(times: list[float], share: float) -> float:
    return times[min(int(len(times) * share), len(times) - 1)]
