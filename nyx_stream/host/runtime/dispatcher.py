"""The calls and streams of one life of a plugin: taken while it runs, within its limits; afterwards its successor's.

Talks to the isolation level through `seam.PluginBackend` only. Does not know how a life begins and ends.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any

from nyx_stream.errors import PluginCrashed, PluginError, PluginStateError, UnknownMethod
from nyx_stream.host.runtime.lifecycle import Lifecycle, State
from nyx_stream.host.runtime.limits import CallCount, CallLimiter, CallScope, DeadlineTimer
from nyx_stream.isolation.backend import PluginBackend
from nyx_stream.policy import Limits

_log = logging.getLogger("nyx.host")

_RUNNING = State.RUNNING  # CPython 3.11 takes as long to find it in the class as to count and time a call


class Dispatcher:
    """Takes the calls to one life.

    Args:
        life: where the plugin stands.
        limits: how many calls at once, how long each may take.
        count: what happened to the calls.
        failure: makes the error for whoever calls a plugin that has failed.
    """

    def __init__(self, life: Lifecycle, limits: Limits, count: CallCount, failure: Callable[[], PluginCrashed]) -> None:
        self.plugin = life.plugin
        self.count = count
        self.methods: Mapping[str, bool] = {}
        """The exported methods: whether each is a stream."""
        self._life = life
        self._limits = limits
        self._failure = failure
        self._successor: Dispatcher | None = None
        self._gate = CallLimiter(life.plugin, limits.concurrency, limits.queue)
        self._scopes = DeadlineTimer(life.plugin)
        self._streams: set[AsyncGenerator[Any, None]] = set()
        self._level: PluginBackend | None = None

    @property
    def active(self) -> int:
        """Calls that run now."""
        return self._gate.active

    @property
    def waiting(self) -> int:
        """Calls that wait for room."""
        return self._gate.waiting

    def open(self, level: PluginBackend) -> None:
        """Takes calls for what runs in `level` from now on."""
        self._level = level
        self.methods = level.methods

    def resize(self, limits: Limits) -> None:
        """Takes new limits for the calls from now on."""
        self._limits = limits
        self._gate.resize(limits.concurrency, limits.queue)

    def pass_on(self, successor: "Dispatcher") -> None:
        """Makes calls that begin from now on the successor's."""
        self._successor = successor
        self.methods = {}

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method within the limits of the grant; see `Handle.call`."""
        # Looked at here first, for a function call is dear on this path.
        level = self._level
        if level is None or self._life.state is not _RUNNING or self.methods.get(method) is not False:
            if self._successor is not None:
                return await self._successor.call(method, arguments)
            level = self._level_for(method, stream=False)
        count, gate, scopes = self.count, self._gate, self._scopes
        count.calls += 1
        scope = CallScope(scopes, method, self._limits.call_timeout)  # not `with`: this path is hot
        try:
            if not gate.try_enter():
                await gate.enter()
            try:
                result = await level.call(method, arguments)
            finally:
                gate.leave()
        except BaseException as error:
            outcome = scope.leave(error) or error
            count.fault(outcome, scope.begun)
            if outcome is error:
                raise
            raise outcome  # noqa: B904  # its cause is set already
        late = scope.leave()
        if late is not None:
            count.fault(late, scope.begun)
            raise late
        count.timed += 1
        count.seconds += (took := monotonic() - scope.begun)
        count.recent.append(took)
        return result

    async def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a streaming method; see `Handle.stream`."""
        if self._successor is not None:
            async with aclosing(self._successor.stream(method, arguments)) as passed_on:
                async for item in passed_on:
                    yield item
            return
        level = self._level_for(method, stream=True)
        self.count.calls += 1
        try:
            with self._scope(method):
                await self._gate.enter()
            items = level.stream(method, arguments)
            self._streams.add(items)
            try:
                while True:
                    if self._life.state is not State.RUNNING:
                        raise self._unavailable()
                    with self._scope(method):
                        try:
                            item = await anext(items)
                        except StopAsyncIteration:
                            return
                    yield item
            finally:
                self._gate.leave()
                self._streams.discard(items)
                await self._close(method, items)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.count.fault(error)
            raise

    async def drain(self, ended: "asyncio.Future[None]") -> None:
        """Waits until the calls under way are done, have had the time of one call, or `ended` is done."""
        until = monotonic() + self._limits.call_timeout
        while (self._gate.active or self._scopes.open) and not ended.done():
            left = until - monotonic()
            if left <= 0:
                break
            departure = self._scopes.next_departure()
            await asyncio.wait((departure, ended), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def end_calls(self, cause: BaseException | None, patience: float) -> "set[asyncio.Task[Any]]":
        """Cancels what runs; `cause` says why the plugin failed, if it did.

        Returns the callers that have not left the plugin after `patience` seconds.
        """
        await self._scopes.end_all(lambda: self._interrupted(cause), cause, patience)
        for items in tuple(self._streams):
            await self._close("stream", items)
        return {scope.task for scope in self._scopes.open}

    def close(self) -> None:
        """Nothing of the life is left."""
        self._scopes.close()
        self._level = None

    def _scope(self, method: str) -> CallScope:
        return CallScope(self._scopes, method, self._limits.call_timeout)

    def _level_for(self, method: str, *, stream: bool) -> PluginBackend:
        """Returns the level if the method can be called now and in that way; raises otherwise."""
        level = self._level
        kind = self.methods.get(method)
        if self._life.state is not State.RUNNING or level is None:
            raise self._unavailable()
        if kind is stream:
            return level
        if kind is None:
            known = ", ".join(sorted(self.methods)) or "nothing"
            raise UnknownMethod(self.plugin, f"exports no method {method!r}; it exports {known}")
        raise UnknownMethod(self.plugin, f"{method} is {'a stream: use stream()' if kind else 'no stream: use call()'}")

    def _unavailable(self) -> PluginError:
        if self._life.state is State.FAILED:
            return self._failure()
        if self._successor is not None:
            return self._outlived()
        return PluginStateError(self.plugin, f"it is {self._life.state} and takes no calls")

    def _interrupted(self, cause: BaseException | None) -> PluginError:
        if cause is not None:
            return PluginCrashed(self.plugin, "it failed during the call")
        if self._successor is not None:
            return self._outlived()
        return PluginStateError(self.plugin, "it was stopped during the call")

    def _outlived(self) -> PluginStateError:
        return PluginStateError(self.plugin, "a reload replaced it during the call, which did not end in time")

    async def _close(self, method: str, items: AsyncGenerator[Any, None]) -> None:
        try:
            with self._scope(method):
                await items.aclose()
        except (PluginError, RuntimeError) as error:  # RuntimeError: somebody else is closing it
            _log.warning("plugin %s: closing a stream of %s: %s", self.plugin, method, error)
