"""Dispatches calls and streams to one run of a plugin, within its limits. After a reload it forwards new calls."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any

from nyx_stream.errors import PluginCrashed, PluginError, PluginStateError, UnknownMethod
from nyx_stream.host.observability.metrics import CallCount, State
from nyx_stream.host.runtime.lifecycle import Lifecycle
from nyx_stream.host.runtime.limits import CallLimiter, CallScope, DeadlineTimer
from nyx_stream.isolation.backend import PluginBackend
from nyx_stream.policy import Limits

_log = logging.getLogger("nyx.host")

_RUNNING = State.RUNNING  # CPython 3.11 looks it up in the class in the time that it takes to count and time a call


class Dispatcher:
    """Takes the calls to one run.

    Args:
        lifecycle: the state of the run.
        limits: how many calls run at once, and how long each may take.
        count: counts the calls.
        failure: makes the error for callers of a failed plugin.
    """

    def __init__(
        self, lifecycle: Lifecycle, limits: Limits, count: CallCount, failure: Callable[[], PluginCrashed]
    ) -> None:
        self.plugin = lifecycle.plugin
        self.count = count
        self.methods: Mapping[str, bool] = {}
        """The exported methods by name: whether each is a stream."""
        self._lifecycle = lifecycle
        self._limits = limits
        self._failure = failure
        self._successor: Dispatcher | None = None
        self._limiter = CallLimiter(lifecycle.plugin, limits.concurrency, limits.queue)
        self._timer = DeadlineTimer(lifecycle.plugin)
        self._streams: set[AsyncGenerator[Any, None]] = set()
        self._backend: PluginBackend | None = None

    @property
    def active(self) -> int:
        """Calls and streams that run now."""
        return self._limiter.active

    @property
    def waiting(self) -> int:
        """Calls and streams in the queue."""
        return self._limiter.waiting

    def open(self, backend: PluginBackend) -> None:
        """Begins to take calls, for the plugin in `backend`."""
        self._backend = backend
        self.methods = backend.methods

    def resize(self, limits: Limits) -> None:
        """Applies new limits to further calls."""
        self._limits = limits
        self._limiter.resize(limits.concurrency, limits.queue)

    def forward_to(self, successor: "Dispatcher") -> None:
        """Forwards further calls to the dispatcher of the next run."""
        self._successor = successor
        self.methods = {}

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method within the limits of the grant; see `Handle.call`."""
        # Checked here first: this path is hot, and a function call is expensive.
        backend = self._backend
        if backend is None or self._lifecycle.state is not _RUNNING or self.methods.get(method) is not False:
            if self._successor is not None:
                return await self._successor.call(method, arguments)
            backend = self._require_backend(method, stream=False)
        count, limiter = self.count, self._limiter
        count.calls += 1
        scope = CallScope(self._timer, method, self._limits.call_timeout)  # not `with`: this path is hot
        try:
            if not limiter.try_enter():
                await limiter.enter()
            try:
                result = await backend.call(method, arguments)
            finally:
                limiter.leave()
        except BaseException as error:
            outcome = scope.leave(error) or error
            count.add_failure(outcome, scope.started)
            if outcome is error:
                raise
            raise outcome  # noqa: B904  # its cause is set already
        late = scope.leave()
        if late is not None:
            count.add_failure(late, scope.started)
            raise late
        count.timed += 1
        count.seconds += (duration := monotonic() - scope.started)
        count.recent.append(duration)
        return result

    async def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a streaming method; see `Handle.stream`."""
        if self._successor is not None:
            async with aclosing(self._successor.stream(method, arguments)) as items:
                async for item in items:
                    yield item
            return
        backend = self._require_backend(method, stream=True)
        self.count.calls += 1
        try:
            with self._scope(method):
                await self._limiter.enter()
            items = backend.stream(method, arguments)
            self._streams.add(items)
            try:
                while True:
                    if self._lifecycle.state is not State.RUNNING:
                        raise self._unavailable()
                    with self._scope(method):
                        try:
                            item = await anext(items)
                        except StopAsyncIteration:
                            return
                    yield item
            finally:
                self._limiter.leave()
                self._streams.discard(items)
                await self._close(method, items)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.count.add_failure(error)
            raise

    async def drain(self, ended: "asyncio.Future[None]") -> None:
        """Waits until all calls have ended, at most for the timeout of one call, or until `ended` is done."""
        until = monotonic() + self._limits.call_timeout
        while (self._limiter.active or self._timer.scopes) and not ended.done():
            left = until - monotonic()
            if left <= 0:
                break
            await asyncio.wait((self._timer.exit_future(), ended), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def end_calls(self, cause: BaseException | None, patience: float) -> "set[asyncio.Task[Any]]":
        """Cancels all calls and streams; `cause` is the plugin's failure, if it failed.

        Returns the callers whose calls haven't ended after `patience` seconds.
        """
        await self._timer.end_all(lambda: self._interrupted(cause), cause, patience)
        for items in tuple(self._streams):
            await self._close("stream", items)
        return {scope.task for scope in self._timer.scopes}

    def close(self) -> None:
        """Releases the backend after the run has ended."""
        self._timer.close()
        self._backend = None

    def _scope(self, method: str) -> CallScope:
        return CallScope(self._timer, method, self._limits.call_timeout)

    def _require_backend(self, method: str, *, stream: bool) -> PluginBackend:
        """Returns the backend if the method can be called now, as a stream or not; raises otherwise."""
        backend = self._backend
        kind = self.methods.get(method)
        if self._lifecycle.state is not State.RUNNING or backend is None:
            raise self._unavailable()
        if kind is stream:
            return backend
        if kind is None:
            known = ", ".join(sorted(self.methods)) or "nothing"
            raise UnknownMethod(self.plugin, f"it doesn't export a method {method!r}; it exports {known}")
        raise UnknownMethod(
            self.plugin, f"{method} is {'a stream: use stream()' if kind else 'not a stream: use call()'}"
        )

    def _unavailable(self) -> PluginError:
        if self._lifecycle.state is State.FAILED:
            return self._failure()
        if self._successor is not None:
            return self._replaced()
        return PluginStateError(self.plugin, f"it is {self._lifecycle.state} and takes no calls")

    def _interrupted(self, cause: BaseException | None) -> PluginError:
        if cause is not None:
            return PluginCrashed(self.plugin, "it failed during the call")
        if self._successor is not None:
            return self._replaced()
        return PluginStateError(self.plugin, "it was stopped during the call")

    def _replaced(self) -> PluginStateError:
        return PluginStateError(self.plugin, "a reload replaced it during the call, which did not end in time")

    async def _close(self, method: str, items: AsyncGenerator[Any, None]) -> None:
        try:
            with self._scope(method):
                await items.aclose()
        except (PluginError, RuntimeError) as error:  # RuntimeError: another task is closing it
            _log.warning("plugin %s: closing a stream of %s: %s", self.plugin, method, error)
