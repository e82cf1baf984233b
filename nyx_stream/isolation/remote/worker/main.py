"""A worker: the process of one plugin. Is sealed first, then imports the plugin and carries out what the host asks.

Runs in a process forked from the zygote. Trusts its host; nothing that it checks is for the host's protection.
"""

import asyncio
import gc
import os
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nyx_core.sandbox import SandboxError
from nyx_stream.errors import PluginLoadError, PluginStateError
from nyx_stream.isolation.code.exception_text import describe, trace_of
from nyx_stream.isolation.code.instance import instantiate
from nyx_stream.isolation.code.modules import PluginModules
from nyx_stream.isolation.process import seal as sealing
from nyx_stream.isolation.registry import REGISTRY
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, Kind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import MethodFace, Order, Ready, RemoteFault, Update, decode, text
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.isolation.remote.wire.types import describe_type
from nyx_stream.isolation.remote.worker.calls import ExportedCalls, raised
from nyx_stream.isolation.remote.worker.log import RemoteLog
from nyx_stream.isolation.remote.worker.rpc import RpcClient
from nyx_stream.policy.manifest import FILE_NAME, Manifest

if TYPE_CHECKING:
    from nyx_stream.plugin import Plugin
    from nyx_stream.policy.approval import Approval

_HANDSHAKE = 64 * 1024


def main(sock: socket.socket) -> int:
    """Lives the life of a worker with its channel at `sock`; returns the exit status."""
    connection = ProtocolConnection("worker")
    opening = _Opening(sock, connection)
    prepared = None
    if not opening.waiting:  # made ahead: the order is still to come
        from nyx_stream.isolation.process.warmup import rehearse  # it rehearses what is here

        prepared = sealing.seal_ahead()
        rehearse()
    order = opening.take(Order, Kind.ORDER)
    try:
        sealed = sealing.seal(order, prepared)
    except (SandboxError, OSError, ValueError) as error:
        message = text(f"its process cannot be sealed: {error}{_advice(error)}")
        opening.put(Kind.FAILED, RemoteFault(reason="load", name=type(error).__name__, message=message).encode())
        return 1
    opening.put(Kind.SEALED, sealed.encode())
    loop = asyncio.new_event_loop()  # meanwhile the host judges the report
    asyncio.set_event_loop(loop)
    loop.run_until_complete(Worker(order, connection, sock, loop).run())
    return 0


def _advice(error: Exception) -> str:
    """What an operator could do about a layer that this machine lacks."""
    lacks = isinstance(error, SandboxError) and error.layer is not None
    return '; with degrade = "allow" in its policy it would run without' if lacks else ""


class _Opening:
    """The first frames, exchanged before there is an event loop: the process is not sealed yet."""

    def __init__(self, sock: socket.socket, connection: ProtocolConnection) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._connection = connection
        self.left: deque[Frame] = deque()

    @property
    def waiting(self) -> bool:
        """Whether something can be taken at once; the end of the channel can, too."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def take(self, model: Any, kind: Kind) -> Any:
        while not self.left:
            data = self._socket.recv(_HANDSHAKE)
            if not data:
                raise SystemExit(0)  # the host gave up
            self.left.extend(self._connection.receive(data))
        frame = self.left.popleft()
        if frame.kind is not kind:
            raise ProtocolFault(f"{frame.kind.name} instead of {kind.name}")
        return decode(model, frame) if model is not None else None

    def put(self, kind: Kind, body: bytes) -> None:
        self._socket.sendall(self._connection.send(Frame(kind, body=body)))


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
        self._lines = RpcClient(order.plugin, lambda: self._channel)
        self._made: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._modules = PluginModules(order.plugin, order.root, order.names, order.digests)
        self._plugin: Plugin | None = None
        self._over: asyncio.Future[None] = loop.create_future()
        self._ended = False

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.from_toml(os.path.join(self._order.folder, FILE_NAME)).bind(self._order.places)

    def capability(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = REGISTRY[name].hold_remote(self._lines.to(name))
        return self._made[name]

    async def ask(self, kind: str, target: str, why: str) -> "Approval":
        approval: Approval = await self.capability("approval")(kind, target, why)
        return approval

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        if self._ended:
            coroutine.close()
            raise PluginStateError(self._order.plugin, "it is being stopped: no task can be started")
        task = self._loop.create_task(self._guarded(coroutine), name=getattr(coroutine, "__name__", "task"))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def run(self) -> None:
        """Waits for the host's word to start, then runs the plugin until the host stops it or goes."""
        self._main = asyncio.current_task()
        self._channel = Channel(self._socket, self._connection, self._take, self._channel_ended, takes_descriptors=True)
        self._calls = ExportedCalls(self._channel.send, self.log)
        self._takers: dict[Kind, Callable[[Frame], None]] = {
            Kind.START: self._begin,
            Kind.CALL: self._calls.call,
            Kind.OPEN: self._calls.open,
            Kind.NEXT: self._calls.next,
            Kind.CANCEL: self._calls.cancel,
            Kind.ANSWER: self._lines.answer,
            Kind.REFUSED: self._lines.answer,
            Kind.ENDED: self._lines.ended,
            Kind.LOGGED: lambda _frame: self.log.flush(),
            Kind.UPDATE: lambda frame: self._update(decode(Update, frame).env),
            Kind.STOP: lambda _frame: self._tasks.add(self._loop.create_task(self._stop(), name="teardown")),
        }
        await self._over
        await self._channel.drain(0)
        self._channel.close()

    def forget(self) -> None:
        """Takes the plugin's modules out of the interpreter, for a worker that does not end with its plugin."""
        self._modules.remove()

    def _begin(self, _frame: Frame) -> None:
        """The host took the report: from here on the plugin's code is read."""
        starting = self._loop.create_task(self._start(), name="setup")
        self._tasks.add(starting)
        starting.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        name = self._order.plugin
        try:
            self._plugin, methods = instantiate(name, self._order.entry, self._modules, self)
        except PluginLoadError as error:
            self._fail(RemoteFault(reason="load", message=text(error.message), trace=trace_of(error)))
            self._finish()
            return
        try:
            await self._plugin.setup()
        except BaseException as error:
            if not self._ended:
                self._fail(raised("setup", "setup", error))
                self._finish()
            return
        self._calls.offer(methods)
        faces = [
            MethodFace(name=method.name, stream=method.stream, returns=describe_type(method.returns))
            for method in methods.values()
        ]
        self._send(Kind.READY, body=Ready(methods=faces).encode())
        gc.enable()  # the first collection comes at once; nobody waits for it now

    def _fail(self, fault: RemoteFault) -> None:
        """Tells the host that the start, or `teardown`, failed."""
        self._send(Kind.FAILED, body=fault.encode())

    def _take(self, frame: Frame) -> None:
        self._takers[frame.kind](frame)

    def _update(self, env: dict[str, str]) -> None:
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
        self._ended = True
        spared = (asyncio.current_task(), self._main)
        left = [task for task in asyncio.all_tasks() if task not in spared]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        self.log.flush()
        self._send(Kind.STOPPED)
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _channel_ended(self, error: Exception | None) -> None:
        # The host is gone, or the two do not understand each other: nobody is left to work for.
        if error is not None:
            sys.stderr.write(f"nyx: {type(error).__name__}: {error}\n")
            sys.stderr.flush()
        os._exit(0 if error is None else 1)

    def _send(self, kind: Kind, number: int = 0, body: bytes = b"") -> None:
        self._channel.send(kind, number, body=body)

    async def _guarded(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # SystemExit in a task would end the event loop
            raise RuntimeError(f"a background task raised {describe(error)}") from error

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._ended:
            self._send(Kind.CRASHED, body=raised("a background task", "other", error).encode())
