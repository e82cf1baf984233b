"""Fuzz target `host`: a real `RemotePlugin` with its broker and log, and a worker that sends what a script says.

Whatever is sent, each caller gets a value or an error of the documented kinds, at most the worker is ended, and nothing
else is raised: not in a task, not in a callback of the loop.
"""

import asyncio
import atexit
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import LimitExceeded, PluginError, SandboxDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.host import find
from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.capability_set import Shared
from nyx_stream.isolation.process.backend import WarmPool
from nyx_stream.isolation.registry import CAPABILITIES
from nyx_stream.isolation.remote.host import approval as host_approval
from nyx_stream.isolation.remote.host import connect as host_connect
from nyx_stream.isolation.remote.host import files as host_files
from nyx_stream.isolation.remote.host import http as host_http
from nyx_stream.isolation.remote.host.backend import RemoteBackend, WorkerProcess
from nyx_stream.isolation.remote.host.resource_monitor import MonitoredWorker, ResourceMonitor
from nyx_stream.isolation.remote.wire.confinement import REQUIRED_LAYERS, with_memory
from nyx_stream.isolation.remote.wire.frames import FrameKind
from nyx_stream.isolation.remote.wire.messages import MethodDescription, Order, Ready, Sealed, decode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.approval import Approval
from nyx_stream.policy.grant import Grant
from tests.fuzz.script import Script

METHODS = (
    MethodDescription(name="plain", stream=False),
    MethodDescription(name="typed", stream=False, returns=["dict", "str", ["tuple...", "date"]]),
    MethodDescription(name="items", stream=True, returns=["set", "bytes"]),
)
HANDLERS = (host_approval, host_connect, host_files, host_http)  # imported now, so that the fuzzer sees what they do
DOCUMENTED = (PluginError, SandboxDenied, LimitExceeded, OSError)


class Launcher:
    """Makes no process: the script writes to the worker's end of the channel."""

    pid = None

    async def prepare(self) -> None:
        """Does nothing."""

    def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        self.socket = socket.socket(fileno=os.dup(descriptors[0]))
        self.socket.setblocking(False)
        process = WorkerProcess(1, self._killed)
        process.started.set_result(0)
        self.process = process
        return process

    def _killed(self, _number: int) -> None:
        self.process.ended.set_result(-9)

    async def aclose(self) -> None:
        self.socket.close()


class IdleMonitor(ResourceMonitor):
    """Measures no process: there is none."""

    def add(self, worker: MonitoredWorker) -> None: ...


def assignment(folder: Path) -> Assignment:
    """A plugin that may write below its own directory."""
    (folder / "plugin.toml").write_text(
        'id = "p"\nversion = "1"\nentry = "m:M"\n[permissions]\nwrite = ["$DATA"]\n[limits]\nsetup_timeout = "1s"\n'
    )
    (folder / "m.py").write_text("")
    (folder / "data").mkdir()
    source = find(folder)
    places = {"$PLUGIN": str(folder), "$DATA": str(folder / "data")}
    policy = SandboxPolicy().allow_path_prefix("$DATA")
    guard = SandboxGuard(policy, manifest=source.manifest, places=places)
    leases = {name: Lease("p", name) for name in CAPABILITIES}
    grant = Grant.of(source.manifest, policy, places)
    return Assignment(source, grant, guard, None, leases, ImportPaths(), crashed=lambda error: None, ask=refuse)


async def refuse(_kind: str, _target: str, _why: str) -> Approval:
    """Grants nothing on request."""
    return Approval(granted=False, reason="no approval is possible")


class Fixture:
    """What all runs share."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="nyx-fuzz-")
        self.assignment = assignment(Path(self._folder.name))
        self.raised: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.raised.append(context))
        atexit.register(self.close)

    def close(self) -> None:
        self.loop.close()
        self._folder.cleanup()

    def play(self, script: Script) -> None:
        logger = logging.getLogger("nyx")
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # a record of the worker is no finding
        try:
            self.loop.run_until_complete(run_plugin(self.assignment, script))
        finally:
            logger.setLevel(level)
        assert not self.raised, self.raised


async def run_plugin(given: Assignment, script: Script) -> None:
    """Runs a plugin once: as much of the handshake as the script contains, calls, and whatever else it sends."""
    launcher = Launcher()
    level = RemoteBackend(WarmPool(launcher), Shared())
    level.monitor = IdleMonitor()
    plugin = level.isolate(given)
    depth = script.number(3)
    tasks = [asyncio.ensure_future(plugin.start())]
    await turns(3)
    worker = ProtocolConnection("worker")
    (frame,) = worker.receive(launcher.socket.recv(2**20))
    if depth:
        put(launcher, worker.send(FrameKind.SEALED, body=sealed(decode(Order, frame))))
        await turns(4)
    if depth == 2:
        worker.receive(launcher.socket.recv(2**20))
        put(launcher, worker.send(FrameKind.READY, body=Ready(methods=METHODS).encode()))
        await tasks[0]
        tasks += [asyncio.ensure_future(plugin.call(name, {})) for name in ("plain", "typed", "plain")]
        tasks.append(asyncio.ensure_future(drain(plugin.stream("items", {}))))
        await turns(2)
    while script.left:
        if depth == 2 and script.chance(16):
            tasks[1 + script.number(4)].cancel()
        put(launcher, script.frame())
        await turns(script.number(4))
    await turns(2)
    await launcher.aclose()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await plugin.stop(())
    await level.aclose()
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, (*DOCUMENTED, asyncio.CancelledError)):
            raise outcome
    await turns(1)


async def turns(times: int) -> None:
    """Lets the loop poll its sockets and run what is ready."""
    for _ in range(times):
        await asyncio.sleep(0)


async def drain(items: AsyncIterator[Any]) -> None:
    """Takes every item of a stream."""
    async for _ in items:
        pass


def put(launcher: Launcher, data: bytes) -> None:
    """Sends what the socket takes; a host that has ended the worker takes nothing."""
    with suppress(OSError):
        launcher.socket.send(data)


def sealed(order: Order) -> bytes:
    """The report of a worker that carried out its order."""
    layers = [{"name": name, "state": "active", "reason": "", "stand_in": ""} for name in sorted(REQUIRED_LAYERS)]
    report = {
        "policy_hash": with_memory(order.confinement, order.memory).digest(),
        "layers": layers,
        "witness": [{"act": "clone", "refused": True}],
        "descriptors": [0, 1, 2, 3],
    }
    return Sealed(report=report, baseline=0).encode()


_fixture: list[Fixture] = []


def consume(data: bytes) -> None:
    """Runs one script. Raises what must not have been raised."""
    if not _fixture:
        _fixture.append(Fixture())
    _fixture[0].play(Script(data))
