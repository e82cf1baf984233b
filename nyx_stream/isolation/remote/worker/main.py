"""A worker: the process of one plugin. It seals itself, then imports the plugin and does what the host requests.

It trusts its host. None of its checks protects the host, which repeats them.
"""

import asyncio
import gc
import os
import select
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from nyx_core.sandbox import SandboxError
from nyx_stream.errors import PluginLoadError, PluginStateError
from nyx_stream.isolation.code.exports import instantiate
from nyx_stream.isolation.code.modules import PluginModules
from nyx_stream.isolation.registry import REGISTRY
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    Message,
    MethodDescription,
    Order,
    Ready,
    RemoteFault,
    Update,
    decode,
    text,
)
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.isolation.remote.wire.types import describe_type
from nyx_stream.isolation.remote.worker.calls import ExportedCalls, raised
from nyx_stream.isolation.remote.worker.log import RemoteLog
from nyx_stream.isolation.remote.worker.rpc import RpcClient
from nyx_stream.isolation.remote.worker.seal import seal, seal_ahead
from nyx_stream.policy.manifest import FILE_NAME, Manifest
from nyx_stream.text import describe_error, format_traceback

if TYPE_CHECKING:
    from nyx_stream.plugin import Plugin
    from nyx_stream.policy.approval import Approval

_READ = 64 * 1024
_CANCEL_TIMEOUT = 1.0
"""Seconds that the plugin's tasks get to end after `teardown`."""

_Message = TypeVar("_Message", bound=Message)


def main(sock: socket.socket, warm_up: Callable[[], None] | None = None) -> int:
    """Runs one worker with its channel at `sock`; returns the exit status.

    A worker that was made in advance, whose order has yet to come, uses the time to call `warm_up`.
    """
    connection = ProtocolConnection("worker")
    sock.setblocking(True)
    prepared = None
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if warm_up is not None and not poll.poll(0):
        prepared = seal_ahead()
        warm_up()
    order = _receive(sock, connection, Order, FrameKind.ORDER)
    try:
        sealed = seal(order, prepared)
    except (SandboxError, OSError, ValueError) as error:
        missing = isinstance(error, SandboxError) and error.layer is not None
        advice = '; with degrade = "allow" in its policy it would run without' if missing else ""
        message = text(f"its process cannot be sealed: {error}{advice}")
        fault = RemoteFault(reason="load", name=type(error).__name__, message=message)
        sock.sendall(connection.send(FrameKind.FAILED, body=fault.encode()))
        return 1
    sock.sendall(connection.send(FrameKind.SEALED, body=sealed.encode()))
    loop = asyncio.new_event_loop()  # while the host judges the report
    asyncio.set_event_loop(loop)
    loop.run_until_complete(Worker(order, connection, sock, loop).run())
    return 0


def _receive(sock: socket.socket, connection: ProtocolConnection, model: type[_Message], kind: FrameKind) -> _Message:
    """Receives one frame without an event loop. Exits if the host closed the channel."""
    frames: list[Frame] = []
    while not frames:
        data = sock.recv(_READ)
        if not data:
            raise SystemExit(0)
        frames = connection.receive(data)
    frame, *others = frames
    if frame.kind is not kind or others:
        raise ProtocolFault(f"{', '.join(frame.kind.name for frame in frames)} instead of {kind.name}")
    return decode(model, frame)


class Worker:
    """One plugin in its process; the `Context` of that plugin."""

    def __init__(
        self, order: Order, connection: ProtocolConnection, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._order = order
        self._connection = connection
        self._socket = sock
        self._loop = loop
        self.env: Mapping[str, str] = MappingProxyType(order.env)
        self.log = RemoteLog(order.plugin, connection, self._send)
        self.rpc = RpcClient(order.plugin, lambda: self._channel)
        self._capabilities: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._modules = PluginModules(order.plugin, order.root, order.names, order.digests)
        self._plugin: Plugin | None = None
        self._finished: asyncio.Future[None] = loop.create_future()
        self._stopping = False

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.from_toml(os.path.join(self._order.folder, FILE_NAME)).bind(self._order.places)

    def capability(self, name: str) -> Any:
        if name not in self._capabilities:
            self._capabilities[name] = REGISTRY[name].hold_remote(self.rpc.to(name))
        return self._capabilities[name]

    async def ask(self, kind: str, target: str, why: str) -> "Approval":
        approval: Approval = await self.capability("approval")(kind, target, why)
        return approval

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        if self._stopping:
            coroutine.close()
            raise PluginStateError(self._order.plugin, "it is being stopped: no task can be started")
        task = self._loop.create_task(self._run_task(coroutine), name=getattr(coroutine, "__name__", "task"))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def run(self) -> None:
        """Waits for START, then runs the plugin until the host stops it or closes the channel."""
        self._main = asyncio.current_task()
        handlers: dict[FrameKind, Callable[[Frame], None]] = {}
        self._channel = Channel(self._socket, self._connection, handlers, self._channel_ended, takes_descriptors=True)
        self._calls = ExportedCalls(self._channel, self.log)
        handlers |= {
            FrameKind.START: lambda _frame: self._start_task(self._start(), "setup"),
            FrameKind.CALL: self._calls.call,
            FrameKind.OPEN: self._calls.open,
            FrameKind.NEXT: self._calls.next,
            FrameKind.CANCEL: self._calls.cancel,
            FrameKind.RESPONSE: self.rpc.answer,
            FrameKind.REQUEST_FAILED: self.rpc.answer,
            FrameKind.LEASE_ENDED: self.rpc.ended,
            FrameKind.LOG_ACK: lambda _frame: self.log.flush(),
            FrameKind.UPDATE: self._update,
            FrameKind.STOP: lambda _frame: self._start_task(self._stop(), "teardown"),
        }
        await self._finished
        await self._channel.drain(0)
        self._channel.close()

    def forget(self) -> None:
        """Removes the plugin's modules from the interpreter, for a process that continues without the plugin."""
        self._modules.remove()

    def _start_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        """Imports the plugin and runs its `setup`. The host has accepted the report."""
        name = self._order.plugin
        try:
            self._plugin, methods = instantiate(name, self._order.entry, self._modules, self)
        except PluginLoadError as error:
            self._fail(RemoteFault(reason="load", message=text(error.message), trace=format_traceback(error)))
            self._finish()
            return
        try:
            await self._plugin.setup()
        except BaseException as error:
            if not self._stopping:
                self._fail(raised("setup", "setup", error))
                self._finish()
            return
        self._calls.offer(methods)
        descriptions = [
            MethodDescription(name=method.name, stream=method.stream, returns=describe_type(method.returns))
            for method in methods.values()
        ]
        self._send(FrameKind.READY, Ready(methods=descriptions).encode())
        gc.enable()  # the first collection starts at once, while no caller waits

    def _fail(self, fault: RemoteFault) -> None:
        self._send(FrameKind.FAILED, fault.encode())

    def _update(self, frame: Frame) -> None:
        env = decode(Update, frame).env
        for name in self.env:
            os.environ.pop(name, None)
        os.environ.update(env)
        self.env = MappingProxyType(env)

    async def _stop(self) -> None:
        ready = self._calls.offered
        await self._calls.end()
        if self._plugin is not None and ready:
            try:
                async with asyncio.timeout(self._order.setup_timeout) as scope:
                    await self._plugin.teardown()
            except BaseException as error:
                late = isinstance(error, TimeoutError) and scope.expired()
                limit = f"teardown took longer than {self._order.setup_timeout:g} s"
                self._fail(RemoteFault(reason="call", message=limit) if late else raised("teardown", "call", error))
        self._stopping = True
        spared = (asyncio.current_task(), self._main)
        tasks = [task for task in asyncio.all_tasks() if task not in spared]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT)
        self.log.flush()
        self._send(FrameKind.STOPPED)
        self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _channel_ended(self, error: Exception | None) -> None:
        # Without its host, or with one of another protocol, a worker has nothing left to do.
        if error is not None:
            sys.stderr.write(f"nyx: {type(error).__name__}: {error}\n")
            sys.stderr.flush()
        os._exit(0 if error is None else 1)

    def _send(self, kind: FrameKind, body: bytes = b"") -> None:
        self._channel.send(kind, body=body)

    async def _run_task(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # SystemExit in a task would end the event loop
            raise RuntimeError(f"a background task raised {describe_error(error)}") from error

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._stopping:
            self._send(FrameKind.CRASHED, raised("a background task", "other", error).encode())
