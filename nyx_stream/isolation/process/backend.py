"""Level `process`: host side of one sealed plugin, from the fork of its worker to the last word about its death.

Whatever ends the connection (an exit, a signal, a fault of the protocol, a kill) ends in `_bury`, once. Knows nothing
of states, queues and timeouts: those are the host's.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import psutil

from nyx_stream.errors import (
    LimitExceeded,
    PluginCallError,
    PluginCrashed,
    PluginError,
    PluginLoadError,
)
from nyx_stream.isolation.backend import Assignment, Usage
from nyx_stream.isolation.capability_set import CapabilitySet, Shared
from nyx_stream.isolation.code.exception_text import describe, trace_of
from nyx_stream.isolation.process.fresh import FreshWorkers
from nyx_stream.isolation.process.launcher import FORK_IS_SAFE, Launcher, WorkerProcess, lacking
from nyx_stream.isolation.process.seal import confinement_of, cpu_seconds
from nyx_stream.isolation.process.warm_pool import WarmPool, WorkerSlot
from nyx_stream.isolation.process.zygote_client import ZygoteClient
from nyx_stream.isolation.registry import REGISTRY
from nyx_stream.isolation.remote.host.broker import Broker, Means
from nyx_stream.isolation.remote.host.calls import GRACE, RemoteCalls, RemoteTraceback, call_error, cause_of
from nyx_stream.isolation.remote.host.handshake import Handshake
from nyx_stream.isolation.remote.host.log import LogIntake
from nyx_stream.isolation.remote.host.output import Output
from nyx_stream.isolation.remote.host.resource_monitor import ResourceMonitor, Watched, measure
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import Frame, Kind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Order, RemoteFault, Sealed, Update, decode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.policy.grant import Grant
from nyx_stream.text import escape

_PATIENCE = 5.0
"""Seconds that a killed process gets to be gone."""
_AFTER = 2.0
"""Seconds beyond the time for `teardown` that a worker gets to end by itself."""


class ProcessBackend:
    """Runs plugins in sealed processes, on the processors `cpus`, or on any. One per host."""

    def __init__(self, *, shared: Shared, cpus: frozenset[int] | None = None) -> None:
        self._shared = shared
        self._launcher: Launcher = ZygoteClient(cpus) if FORK_IS_SAFE else FreshWorkers(cpus)
        self._reserve = WarmPool(self._launcher)
        self._watch = ResourceMonitor()
        self._turns = FairScheduler()

    def isolate(self, assignment: Assignment) -> "SealedPlugin":
        """Prepares one plugin; nothing of it runs yet."""
        return SealedPlugin(assignment, self._shared, self._reserve, self._watch, self._turns)

    async def aclose(self) -> None:
        """Ends what made the workers. Every plugin has been stopped."""
        await self._watch.aclose()
        await self._reserve.aclose()
        await self._launcher.aclose()


class SealedPlugin:
    """One plugin in its worker. An `Isolation`."""

    def __init__(
        self, assignment: Assignment, shared: Shared, reserve: WarmPool, watch: ResourceMonitor, turns: FairScheduler
    ) -> None:
        self._name = assignment.grant.manifest.id
        self._assignment = assignment
        self._shared = shared
        self._reserve = reserve
        self._watch = watch
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._provision = CapabilitySet(assignment, shared)
        self._log = LogIntake(self._name)
        self._process: WorkerProcess | None = None
        self._pid: int | None = None
        self._measured: psutil.Process | None = None
        self._channel: Channel | None = None
        self._handshake = Handshake(assignment, self._log)
        self._ready = False
        self._stopped: asyncio.Future[PluginError | None] | None = None
        self._burial: asyncio.Task[None] | None = None

    @property
    def methods(self) -> Mapping[str, bool]:
        return self._calls.methods

    async def start(self) -> None:
        if missing := lacking():
            raise PluginLoadError(self._name, f'isolation "process" is not to be had here: {missing}')
        self._provision.bind()
        order = self._order()
        berth = self._reserve.take()
        try:
            await self._begin(order, berth)
        finally:
            self._reserve.done(refill=self._pid is not None)

    async def _begin(self, order: Order, berth: WorkerSlot) -> None:
        channel = await self._launch(order, berth)
        with suppress(psutil.NoSuchProcess):  # looked up while the worker seals itself
            self._measured = psutil.Process(self._pid)
        sealed = await self._handshake.take_part(order, channel, self._calls)
        self.report = sealed.report
        self._ready = True
        self._begin_watch(order, sealed)

    def _begin_watch(self, order: Order, sealed: Sealed) -> None:
        files = order.confinement.limits.open_files
        if self._measured is None or files is None:  # it died in that moment: others see to that
            return
        watched = Watched(
            name=self._name,
            process=self._measured,
            memory=sealed.baseline + order.memory,
            descriptors=files.hard,
            cpu_time=cpu_seconds(self._assignment.grant.limits),
            idle=lambda: not self._calls.active,
            exceeded=self._exceeded,
        )
        self._watch.add(watched)

    def call(self, method: str, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
        return self._calls.call(method, arguments)

    def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        return self._calls.stream(method, arguments)

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:  # no task here is the plugin's
        failure = None
        with anyio.CancelScope(shield=True):
            if self._channel is not None:
                if self._ready and not self._channel.closed:
                    failure = await self._tear_down(self._channel)
                self._bury("it was stopped")
            if self._burial is not None:
                await self._burial
            for error in await self._provision.close("the plugin was unloaded"):
                self._log.error("closing a capability failed", error)
        if failure is not None:
            raise failure

    def update(self, grant: Grant) -> None:
        self._provision.policy_changed()
        if self._channel is not None:
            self._channel.send(Kind.UPDATE, body=Update(env=_environment(grant)).encode())

    def usage(self) -> Usage | None:
        if self._pid is None or self._burial is not None:
            return None
        return measure(self._pid)

    def trace(self, error: BaseException) -> str:
        if isinstance(error.__cause__, RemoteTraceback):  # where the host was at that moment is no news
            return f"{error.__cause__}\n\n{describe(error)}"
        return trace_of(error)

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
            env=_environment(grant),
            confinement=confinement_of(source, grant, degrade=grant.policy.degrade == "allow"),
            memory=grant.limits.memory,
            setup_timeout=grant.limits.setup_timeout,
        )

    async def _launch(self, order: Order, berth: WorkerSlot) -> Channel:
        """Sends the order and waits for the process, which may be there already."""
        channel = Channel(
            berth.channel,
            ProtocolConnection("host"),
            self._take,
            self._over,
            takes_descriptors=False,
            turns=self._turns,
            growing=lambda number, body: self._calls.grow(number, body),
        )
        channel.send(Kind.ORDER, body=order.encode())  # first of all: whoever waits for it has most to do
        self._output = Output(berth.output, partial(self._log.line, "stdout"), self._turns)
        self._errors = Output(berth.errors, partial(self._log.line, "stderr"), self._turns)
        self._calls = RemoteCalls(self._name, channel, self._turns, self._overdue)
        means = Means(self._assignment, self._provision, self._shared)
        self._broker = Broker(means, {name: row.handler for name, row in REGISTRY.items()}, channel)
        self._takers: dict[Kind, Callable[[Frame], None]] = {
            Kind.RESULT: self._calls.take,
            Kind.ITEM: self._calls.take_item,
            Kind.END: self._calls.take,
            Kind.ASK: self._broker.ask,
            Kind.LOG: self._log.take,
            Kind.CANCEL: self._broker.cancel,
            Kind.FAILED: self._failed,
            Kind.CRASHED: self._crashed,
            Kind.STOPPED: lambda _frame: self._settle(None),
        }
        self._log.open(channel)
        self._channel = channel
        try:
            self._process = await berth.process()
            self._pid = self._process.forked.result()
        except OSError as error:
            raise PluginLoadError(self._name, f"no process can be made for it: {error}") from error
        return channel

    def _take(self, frame: Frame) -> None:
        take = self._takers.get(frame.kind)
        if take is not None:
            take(frame)
        else:
            self._handshake.take(frame)

    def _failed(self, frame: Frame) -> None:
        if frame.id:
            self._calls.take_failed(frame)
        elif self._stopped is not None:
            error = call_error(self._name, "teardown", decode(RemoteFault, frame))
            self._settle(error if isinstance(error, PluginError) else PluginError(self._name, f"teardown: {error}"))
        else:
            self._handshake.take(frame)

    def _settle(self, failure: PluginError | None) -> None:
        """`teardown` is over, one way or the other; the first word counts."""
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(failure)

    def _crashed(self, frame: Frame) -> None:
        fault = decode(RemoteFault, frame)
        error = PluginCrashed(self._name, escape(fault.message))
        error.__cause__ = cause_of(fault)
        self._assignment.crashed(error)

    async def _tear_down(self, channel: Channel) -> PluginError | None:
        """Has the worker run `teardown`; returns what went wrong."""
        self._stopped = self._loop.create_future()
        channel.send(Kind.STOP)
        limit = self._assignment.grant.limits.setup_timeout
        done, _ = await asyncio.wait((self._stopped,), timeout=limit + _AFTER)
        return self._stopped.result() if done else PluginCallError(self._name, f"teardown took longer than {limit:g} s")

    def _overdue(self, method: str) -> None:
        self._bury(f"it ignored the cancellation of {method} for {GRACE:g} s and was killed")

    def _over(self, error: Exception | None) -> None:
        broken = isinstance(error, ProtocolFault)
        self._bury(f"it broke the protocol and was killed: {error}" if broken else "")

    def _exceeded(self, limit: str, used: float, allowed: float) -> None:
        """The watch found a limit that does not hold."""
        detail = f"{limit} {used:g}, of {allowed:g} with what the worker itself needs"
        self._bury(f"it uses more than it was granted and was killed: {detail}", self._over_limit(limit, detail))

    def _over_limit(self, limit: str, detail: str) -> LimitExceeded:
        allowed = int(getattr(self._assignment.grant.limits, limit))
        return LimitExceeded(plugin=self._name, limit=limit, allowed=allowed, detail=detail)

    def _bury(self, why: str, cause: LimitExceeded | None = None) -> None:
        """Ends the worker and all that hangs on it, once. `why` says what for, if it did not end by itself."""
        if self._burial is None and self._channel is not None:
            name = f"nyx:{self._name}:burial"
            self._burial = self._loop.create_task(self._end(self._channel, why, cause), name=name)

    async def _end(self, channel: Channel, why: str, cause: LimitExceeded | None) -> None:
        channel.close()
        if self._pid is not None:
            self._watch.remove(self._pid)
        status = None
        if self._process is not None:
            self._process.kill()
            done, _ = await asyncio.wait((self._process.ended,), timeout=_PATIENCE)
            status = self._process.ended.result() if done else None
        for output in (self._output, self._errors):
            output.drain()
            output.close()
        self._log.close()
        if not why and status == -signal.SIGXCPU:
            cause = self._over_limit("cpu_time", "its process was killed by SIGXCPU")
            why = f"it used up its cpu_time of {self._assignment.grant.limits.cpu_time:g} s"
        failure = PluginCrashed(self._name, why or _how(status) + _lines(self._errors.tail))
        failure.__cause__ = cause
        await self._broker.close()
        self._calls.fail(failure)
        self._handshake.fail(failure)
        self._settle(failure)
        if self._ready and self._stopped is None:
            # After the callers, which were woken a moment ago: they are to get this very error.
            self._loop.call_soon(self._assignment.crashed, failure)


def _how(status: int | None) -> str:
    if status is None:
        return "its process ended with its zygote"
    if status < 0:
        try:
            return f"its process was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"its process was killed by signal {-status}"
    return f"its process ended with exit status {status}"


def _lines(tail: Collection[str]) -> str:
    return "".join(["; the last lines of its stderr:", *(f"\n    {line}" for line in tail)]) if tail else ""


def _environment(grant: Grant) -> dict[str, str]:
    return {name: os.environ[name] for name in grant.env if name in os.environ}
