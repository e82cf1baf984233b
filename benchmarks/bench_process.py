"""Level `process`: starting a sealed worker, calling into it, and streaming a download through its broker.

A worker is ready when `PluginHost.load` returns: it is forked, sealed and verified, and the plugin is imported and set
up. The zygote is warm, as it is after the first plugin. The peers start `python -S -c pass`, which imports nothing.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.http_server import serving
from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.peers import peer, version
from benchmarks.plugins import write_plugin
from benchmarks.timing import Budget, Loop, awaited, interleave, once_each
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.plugin_sandbox import SandboxPolicy

_READY = "sealed worker ready"
_PEERS = " starting python -S -c pass"
_CALL = "empty call to a sealed worker, against a socketpair echo"
_ENCODED = "the same round trip, plus arguments and results that are validated and encoded on both sides"
_PAUSE = 0.03
"""Seconds between two starts; without a pause they would also measure how the next worker is created."""
_PASS = [os.path.realpath(sys.executable), "-S", "-c", "pass"]
_READABLE = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev", sys.prefix, os.path.realpath(sys.base_prefix)]


def run(budget: Budget) -> Iterator[Result]:
    size = (64 if budget.quick else 1024) << 20
    with tempfile.TemporaryDirectory() as folder, serving() as served, asyncio.Runner() as runner:
        host = PluginHost(data_dir=f"{folder}/data")
        runner.run(host.__aenter__())
        try:
            rule = f"GET http://127.0.0.1:{served.port}/**"
            sealed = write_plugin(folder, "sealed", request=rule)
            inline = write_plugin(folder, "inline", request=rule)
            policy = (
                SandboxPolicy.locked_down().allow_request(rule).with_limits(response_bytes="4GiB", call_timeout="10min")
            )
            try:
                worker = runner.run(host.load(sealed, policy=policy, isolation="process"))
            except PluginError as error:
                yield from _not_here(str(error), size)
                return
            yield from _starts(budget, runner, host, folder)
            yield _calls(budget, runner, worker)
            near = runner.run(host.load(inline, policy=policy))
            yield _download(runner, worker, near, f"http://127.0.0.1:{served.port}/{size}", size)
        finally:
            runner.run(host.__aexit__(None, None, None))


def _through(size: int) -> str:
    return f"download of {size >> 20:,} MiB through a sealed process, against inline"


def _not_here(reason: str, size: int) -> Iterator[Row]:
    yield Row(_READY, target=Target("s", 5e-3), reason=reason)
    for package in ("sandlock", "nono-py"):
        yield Row(f"{_READY}, against {package}{_PEERS}", target=Target("faster", 4), reason=reason)
    yield Row(_CALL, target=Target("ratio", 1.5), reason=reason)
    yield Row(_through(size), target=Target("faster", 0.6), reason=reason)


def _starts(budget: Budget, runner: asyncio.Runner, host: PluginHost, folder: str) -> Iterator[Row]:
    plugin = write_plugin(folder, "starting")
    used: list[_Used] = []

    async def load(count: int) -> float:
        taken = 0.0
        for _ in range(count):
            await asyncio.sleep(_PAUSE)
            before = {child.pid: _used(child.pid) for child in psutil.Process().children(recursive=True)}
            start = time.perf_counter()
            handle = await host.load(plugin, isolation="process")
            taken += time.perf_counter() - start
            pid = handle._record.run.backend.pid  # type: ignore[union-attr]  # a level of this kind has one
            used.append(_used(pid).since(before.get(pid, _Used())))
            await host.unload("starting")
        return taken

    loops: dict[str, Loop] = {"worker": lambda count: runner.run(load(count))}
    missing: dict[str, str] = {}
    for module, package, prepare in (("sandlock", "sandlock", _sandlock), ("nono_py", "nono-py", _nono)):
        found = peer(module)
        if isinstance(found, str):
            missing[package] = found
            continue
        try:
            loops[package] = prepare(found)
            loops[package](1)
        except Exception as error:  # a peer may fail on this host in any way
            del loops[package]
            missing[package] = f"{version(package)}: {type(error).__name__}: {error}"
    times = once_each(budget, loops, rounds=21 if budget.quick else 201)
    made_of = _breakdown(used, times["worker"])
    yield Row(_READY, times["worker"], None, Target("s", 5e-3), made_of)
    for package in ("sandlock", "nono-py"):
        claim = f"{_READY}, against {package}{_PEERS}"
        if package in missing:
            yield Row(claim, target=Target("faster", 4), reason=missing[package])
        else:
            named = Measure(version(package), times[package].values)
            yield Row(claim, times["worker"], named, Target("faster", 4), made_of)


class _Used(NamedTuple):
    """What a process has used: seconds on a processor, seconds waiting for one, and minor page faults."""

    on_cpu: float = 0.0
    waiting: float = 0.0
    faults: float = 0.0

    def since(self, before: "_Used") -> "_Used":
        return _Used(*(now - then for now, then in zip(self, before, strict=True)))


def _used(pid: int) -> _Used:
    """Reads the usage (proc_pid_stat(5); schedstat of Documentation/scheduler), or zeros where it is unavailable."""
    try:
        on_cpu, waiting, _ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
        faults = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[7]
    except OSError:
        return _Used()
    return _Used(int(on_cpu) / 1e9, int(waiting) / 1e9, int(faults))


def _breakdown(used: list[_Used], times: Measure) -> str:
    """Describes what one start consists of, in medians; the worker was forked before."""
    worst = statistics.quantiles(times.values, n=100)[-1] * 1e3
    on_cpu, waiting, faults = (statistics.median(part) for part in zip(*used, strict=True))
    return (
        f"p99 {worst:.1f} ms; after its order a worker needs {on_cpu * 1e3:.1f} ms of a processor, "
        f"with {faults:.0f} page faults, and waits {waiting * 1e3:.1f} ms for one; the host takes the rest"
    )


def _timed(start: Callable[[], bool]) -> Loop:
    def loop(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            if not start():
                raise RuntimeError("the program failed")
        return time.perf_counter() - begun

    return loop


def _sandlock(module: Any) -> Loop:
    readable = [path for path in _READABLE if os.path.exists(path)]
    return _timed(lambda: bool(module.Sandbox(fs_readable=readable).run(_PASS, timeout=10).success))


def _nono(module: Any) -> Loop:
    capabilities = module.CapabilitySet()
    for path in _READABLE:
        if os.path.exists(path):
            capabilities.allow_path(path, module.AccessMode.READ)
    capabilities.block_network()
    return _timed(lambda: module.sandboxed_exec(capabilities, _PASS, cwd="/", timeout_secs=10.0).exit_code == 0)


def _calls(budget: Budget, runner: asyncio.Runner, worker: Any) -> Row:
    with _echo(runner) as ask:
        loops = {
            "call": awaited(runner, lambda: worker.call("empty"), clock=time.perf_counter),
            "socketpair echo": awaited(runner, ask, clock=time.perf_counter),
        }
        times = interleave(budget, loops)
    return Row(_CALL, times["call"], times["socketpair echo"], Target("ratio", 1.5), _ENCODED)


class _EchoClient(asyncio.Protocol):
    """Sends one message and receives one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    async def round_trip(self) -> bytes:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(b"x" * 64)
        return await self.answer


_ECHO = """
import asyncio, socket, sys

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
    def connection_lost(self, error):
        done.set()

async def main():
    global done
    done = asyncio.Event()
    end = socket.socket(fileno=int(sys.argv[1]))
    await asyncio.get_running_loop().create_connection(Echo, sock=end)
    await done.wait()

asyncio.run(main())
"""


@contextmanager
def _echo(runner: asyncio.Runner) -> Iterator[Callable[[], Any]]:
    """Starts a process that echoes over a socketpair. Yields a function that awaits one round trip."""
    ours, theirs = socket.socketpair()

    async def connect() -> _EchoClient:
        _, protocol = await asyncio.get_running_loop().create_connection(_EchoClient, sock=ours)
        return protocol

    with subprocess.Popen([sys.executable, "-c", _ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()]):
        theirs.close()
        client = runner.run(connect())
        try:
            yield client.round_trip
        finally:
            client.transport.close()
            runner.run(asyncio.sleep(0))  # the transport closes its socket in the next iteration of the loop


def _download(runner: asyncio.Runner, worker: Any, near: Any, url: str, size: int) -> Row:
    def through(plugin: Any) -> Loop:
        async def download() -> None:
            got = await plugin.call("download", url=url)
            if got != size:
                raise RuntimeError(f"{got} bytes of {size}")

        return awaited(runner, download, clock=time.perf_counter)

    budget = Budget(quick=True, rounds=3, sample=0)
    try:
        times = once_each(budget, {"sealed": through(worker), "inline": through(near)}, rounds=3)
    except PluginError as error:
        return Row(_through(size), target=Target("faster", 0.6), reason=str(error))
    return Row(_through(size), times["sealed"], times["inline"], Target("faster", 0.6))
