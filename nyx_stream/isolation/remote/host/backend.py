"""Host side of every level that runs plugins in other processes: calls, capabilities, output, limits and the end.

`RemotePlugin` drives one worker from its order to its exit status. Whatever ends the connection (an exit, a signal, a
protocol fault, a kill) leads to `_terminate`, which acts once. How the worker's process is made is up to a
`WorkerLauncher`: an isolation level provides one, and is otherwise a `RemoteBackend`.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import anyio
import psutil

from nyx_stream.errors import LimitExceeded, PluginCallError, PluginCrashed, PluginError, PluginLoadError
from nyx_stream.isolation.backend import Assignment, ProcessUsage, environment_of
from nyx_stream.isolation.capability_set import CapabilitySet, Shared
from nyx_stream.isolation.remote.host.broker import Broker
from nyx_stream.isolation.remote.host.calls import GRACE, RemoteCalls, RemoteTraceback, call_error, cause_of
from nyx_stream.isolation.remote.host.handshake import Handshake
from nyx_stream.isolation.remote.host.log import Output, WorkerLog
from nyx_stream.isolation.remote.host.resource_monitor import MonitoredWorker, ResourceMonitor, measure
from nyx_stream.isolation.remote.wire.channel import Channel, FairScheduler
from nyx_stream.isolation.remote.wire.confinement import confinement_of, cpu_seconds, missing_sockets
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Order, RemoteFault, Sealed, Update, decode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.policy.grant import Grant
from nyx_stream.text import describe_error, escape, format_traceback

_KILL_TIMEOUT = 5.0
"""Seconds that a killed process gets to end."""
_STOP_GRACE = 2.0
"""Seconds beyond the limit of `teardown` that a worker gets to exit on its own."""


class WorkerProcess:
    """The process of one worker, as its launcher reports it."""

    def __init__(self, number: int, kill: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.started: asyncio.Future[int] = loop.create_future()
        """Its pid."""
        self.ended: asyncio.Future[int | None] = loop.create_future()
        """Its exit status, or the negated number of a signal, or `None` if unknown. Only guaranteed after `kill`."""
        self._kill = kill

    def kill(self) -> None:
        """Sends SIGKILL to the process, if it still exists, and has it reaped."""
        if not self.ended.done():
            self._kill(self.number)

    def fail(self, error: OSError) -> None:
        """Notes that the process couldn't be made, or that its exit status will never be known."""
        self.ended.set_result(None)
        if not self.started.done():
            self.started.set_exception(error)
            self.started.exception()  # marks it as retrieved: the caller may be gone


class WorkerSlot(Protocol):
    """The host's ends of one worker's descriptors, which the caller of `acquire` owns, and its process.

    What is written to `channel` before the process exists waits for it there.
    """

    channel: socket.socket
    output: int
    errors: int

    async def process(self) -> WorkerProcess:
        """Waits for the process, whose `started` is then done. Called once.

        Raises:
            OSError: the process can't be made.
        """


class WorkerLauncher(Protocol):
    """Makes the processes of workers. One per host and isolation level."""

    def acquire(self) -> WorkerSlot:
        """Returns a slot for a plugin that starts now. `start_finished` must follow.

        Raises:
            OSError: this process has too many open descriptors.
        """

    def start_finished(self, *, refill: bool) -> None:
        """Notes that a start has finished. `refill` tells whether another process can be made in advance."""

    async def aclose(self) -> None:
        """Ends every process that is left."""


class RemoteBackend:
    """An isolation level whose plugins run in workers that `launcher` makes. One per host."""

    def __init__(self, launcher: WorkerLauncher, shared: Shared) -> None:
        self.launcher = launcher
        self.shared = shared
        self.monitor = ResourceMonitor()
        self.scheduler = FairScheduler()

    def isolate(self, assignment: Assignment) -> "RemotePlugin":
        return RemotePlugin(assignment, self)

    async def aclose(self) -> None:
        await self.monitor.aclose()
        await self.launcher.aclose()


class RemotePlugin:
    """One plugin in its worker. A `PluginBackend`."""

    def __init__(self, assignment: Assignment, level: RemoteBackend) -> None:
        self._name = assignment.grant.manifest.id
        self._assignment = assignment
        self._level = level
        self._loop = asyncio.get_running_loop()
        self._capabilities = CapabilitySet(assignment, level.shared)
        self._logger = logging.getLogger(f"nyx.plugin.{self._name}")
        self._handshake = Handshake(assignment, self._logger)
        self._process: WorkerProcess | None = None
        self.pid: int | None = None
        """The worker's pid, once it has one."""
        self._channel: Channel | None = None
        self._ready = False
        self._stopped: asyncio.Future[PluginError | None] | None = None
        self._termination: asyncio.Task[None] | None = None

    @property
    def methods(self) -> Mapping[str, bool]:
        return self._calls.methods

    def call(self, method: str, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
        return self._calls.call(method, arguments)

    def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        return self._calls.stream(method, arguments)

    async def start(self) -> None:
        if missing := missing_sockets():
            raise PluginLoadError(self._name, f"it cannot run in another process here: {missing}")
        self._capabilities.bind()
        order = self._order()
        slot = self._level.launcher.acquire()
        try:
            channel = self._connect(slot, order)
            try:
                self._process = await slot.process()
            except OSError as error:
                raise PluginLoadError(self._name, f"its process cannot be started: {error}") from error
            self.pid = self._process.started.result()
            process = None
            with suppress(psutil.NoSuchProcess):  # looked up while the worker seals itself
                process = psutil.Process(self.pid)
            sealed = await self._handshake.perform(order, channel, self._calls)
            self.report = sealed.report
            self._ready = True
            if process is not None:
                self._monitor(process, order, sealed)
        finally:
            self._level.launcher.start_finished(refill=self.pid is not None)

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:  # none of the host's tasks run plugin code
        failure = None
        with anyio.CancelScope(shield=True):
            if self._channel is not None:
                if self._ready and not self._channel.closed:
                    failure = await self._tear_down(self._channel)
                self._terminate("it was stopped")
            if self._termination is not None:
                await self._termination
            for error in await self._capabilities.close("the plugin was unloaded"):
                self._logger.error("closing a capability failed", exc_info=error)
        if failure is not None:
            raise failure

    def update(self, grant: Grant) -> None:
        self._capabilities.policy_changed()
        if self._channel is not None:
            self._channel.send(FrameKind.UPDATE, body=Update(env=environment_of(grant)).encode())

    def usage(self) -> ProcessUsage | None:
        if self.pid is None or self._termination is not None:
            return None
        return measure(self.pid)

    def trace(self, error: BaseException) -> str:
        if isinstance(error.__cause__, RemoteTraceback):  # the stack of the host says nothing about the error
            return f"{error.__cause__}\n\n{describe_error(error)}"
        return format_traceback(error)

    def _order(self) -> Order:
        source, grant = self._assignment.source, self._assignment.grant
        return Order(
            plugin=self._name,
            entry=grant.manifest.entry,
            folder=source.folder,
            root=source.root,
            names=source.names,
            digests=None if source.digests is None else dict(source.digests),
            places=dict(grant.places),
            env=environment_of(grant),
            confinement=confinement_of(source, grant),
            memory=grant.limits.memory,
            setup_timeout=grant.limits.setup_timeout,
        )

    def _connect(self, slot: WorkerSlot, order: Order) -> Channel:
        """Sends the order, and attaches everything that handles what the worker sends."""
        scheduler = self._level.scheduler
        handlers: dict[FrameKind, Callable[[Frame], None]] = {}
        channel = Channel(
            slot.channel,
            ProtocolConnection("host"),
            handlers,
            self._channel_ended,
            takes_descriptors=False,
            scheduler=scheduler,
            on_partial=lambda number, body: self._calls.on_partial(number, body),
        )
        channel.send(FrameKind.ORDER, body=order.encode())  # first: a worker that waits for it has most to do
        self._channel = channel
        self._output = Output(slot.output, partial(self._logger.info, "stdout: %s"), scheduler)
        self._errors = Output(slot.errors, partial(self._logger.warning, "stderr: %s"), scheduler)
        self._calls = RemoteCalls(self._name, channel, scheduler, self._call_overdue)
        self._broker = Broker(self._capabilities, channel)
        self._log = WorkerLog(self._logger, channel)
        handlers |= {
            FrameKind.SEALED: self._handshake.on_frame,
            FrameKind.READY: self._handshake.on_frame,
            FrameKind.RESULT: self._calls.on_result,
            FrameKind.ITEM: self._calls.on_item,
            FrameKind.END: self._calls.on_result,
            FrameKind.REQUEST: self._broker.ask,
            FrameKind.CANCEL: self._broker.cancel,
            FrameKind.LOG: self._log.on_record,
            FrameKind.FAILED: self._on_failed,
            FrameKind.CRASHED: self._on_crashed,
            FrameKind.STOPPED: lambda _frame: self._settle(None),
        }
        return channel

    def _monitor(self, process: psutil.Process, order: Order, sealed: Sealed) -> None:
        files = order.confinement.limits.open_files
        if files is not None:
            self._level.monitor.add(
                MonitoredWorker(
                    name=self._name,
                    process=process,
                    memory=sealed.baseline + order.memory,
                    descriptors=files.hard,
                    cpu_seconds=cpu_seconds(self._assignment.grant.limits),
                    idle=lambda: not self._calls.active,
                    exceeded=self._limit_exceeded,
                )
            )

    def _on_failed(self, frame: Frame) -> None:
        if frame.id:
            self._calls.on_failed(frame)
        elif self._stopped is not None:
            error = call_error(self._name, "teardown", decode(RemoteFault, frame))
            self._settle(error if isinstance(error, PluginError) else PluginError(self._name, f"teardown: {error}"))
        else:
            self._handshake.on_frame(frame)

    def _on_crashed(self, frame: Frame) -> None:
        fault = decode(RemoteFault, frame)
        error = PluginCrashed(self._name, escape(fault.message))
        error.__cause__ = cause_of(fault)
        self._assignment.crashed(error)

    async def _tear_down(self, channel: Channel) -> PluginError | None:
        """Has the worker run `teardown`; returns its failure, if any."""
        self._stopped = self._loop.create_future()
        channel.send(FrameKind.STOP)
        limit = self._assignment.grant.limits.setup_timeout
        done, _ = await asyncio.wait((self._stopped,), timeout=limit + _STOP_GRACE)
        return self._stopped.result() if done else PluginCallError(self._name, f"teardown took longer than {limit:g} s")

    def _settle(self, failure: PluginError | None) -> None:
        """Notes how `teardown` ended. Only the first report counts."""
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(failure)

    def _call_overdue(self, method: str) -> None:
        self._terminate(f"it ignored the cancellation of {method} for {GRACE:g} s and was killed")

    def _channel_ended(self, error: Exception | None) -> None:
        broken = isinstance(error, ProtocolFault)
        self._terminate(f"it broke the protocol and was killed: {error}" if broken else "")

    def _limit_exceeded(self, limit: str, used: float, allowed: float) -> None:
        """The resource monitor found a limit exceeded, which the kernel should have enforced."""
        detail = f"{limit} {used:g}, of {allowed:g} with what the worker itself needs"
        self._terminate(f"it uses more than it was granted and was killed: {detail}", self._limit_error(limit, detail))

    def _limit_error(self, limit: str, detail: str) -> LimitExceeded:
        allowed = int(getattr(self._assignment.grant.limits, limit))
        return LimitExceeded(plugin=self._name, limit=limit, allowed=allowed, detail=detail)

    def _terminate(self, reason: str, cause: LimitExceeded | None = None) -> None:
        """Ends the worker and everything attached to it, once. `reason` is empty if it ended on its own."""
        if self._termination is None and self._channel is not None:
            name = f"nyx:{self._name}:termination"
            self._termination = self._loop.create_task(self._end(self._channel, reason, cause), name=name)

    async def _end(self, channel: Channel, reason: str, cause: LimitExceeded | None) -> None:
        channel.close()
        if self.pid is not None:
            self._level.monitor.remove(self.pid)
        status = None
        if self._process is not None:
            self._process.kill()
            done, _ = await asyncio.wait((self._process.ended,), timeout=_KILL_TIMEOUT)
            status = self._process.ended.result() if done else None
        for output in (self._output, self._errors):
            output.drain()
            output.close()
        self._log.close()
        if not reason and status == -signal.SIGXCPU:
            cause = self._limit_error("cpu_time", "its process was killed by SIGXCPU")
            reason = f"it used up its cpu_time of {self._assignment.grant.limits.cpu_time:g} s"
        failure = PluginCrashed(self._name, reason or _exit_reason(status, self._errors.tail))
        failure.__cause__ = cause
        await self._broker.close()
        self._calls.fail(failure)
        self._handshake.fail(failure)
        self._settle(failure)
        if self._ready and self._stopped is None:
            # After the callers, which were woken a moment ago, so that they raise this very error.
            self._loop.call_soon(self._assignment.crashed, failure)


def _exit_reason(status: int | None, stderr: Collection[str]) -> str:
    if status is None:
        reason = "its process ended together with its parent, so its exit status is unknown"
    elif status >= 0:
        reason = f"its process ended with exit status {status}"
    else:
        try:
            reason = f"its process was killed by {signal.Signals(-status).name}"
        except ValueError:
            reason = f"its process was killed by signal {-status}"
    return "\n    ".join([f"{reason}; the last lines of its stderr:", *stderr]) if stderr else reason
