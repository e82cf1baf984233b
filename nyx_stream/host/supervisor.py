"""One life of one plugin: its state, its calls, and the task that starts it, waits for its end, and cleans up.

Talks to the isolation level through `seam.Isolation` only. Knows nothing of other plugins, of files or of policies.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any

from nyx_stream.errors import PluginCrashed, PluginError, PluginSetupError, PluginStateError, UnknownMethod
from nyx_stream.host.calls import CallCount, CallScope, Gate, Scopes
from nyx_stream.host.lifecycle import OVER, Event, Lifecycle, State
from nyx_stream.isolation.faults import trace_of
from nyx_stream.isolation.seam import Isolation
from nyx_stream.policy import Limits

_log = logging.getLogger("nyx.host")

_PATIENCE = 5.0
"""Seconds that calls get to leave the plugin after they were cancelled."""

_RUNNING = State.RUNNING  # CPython 3.11 takes as long to find it in the class as to count and time a call

_TIMES = 5
"""How often a setup is cancelled within `_PATIENCE`."""


class Supervisor:
    """Runs a plugin once. `on_crash` is called when it fails after it was running."""

    def __init__(
        self, plugin: str, limits: Limits, count: CallCount, on_crash: Callable[[BaseException], None]
    ) -> None:
        self.plugin = plugin
        self.count = count
        self.life = Lifecycle(plugin)
        self.error: BaseException | None = None
        """Why it failed."""
        self.traceback: str | None = None
        self.successor: Supervisor | None = None
        """The next life, once it takes the calls."""
        self._limits = limits
        self._on_crash = on_crash
        self._gate = Gate(plugin, limits.concurrency, limits.queue)
        self._scopes = Scopes(plugin)
        self._streams: set[AsyncGenerator[Any, None]] = set()
        self._level: Isolation | None = None
        self._methods: Mapping[str, bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def state(self) -> State:
        """Where the plugin stands."""
        return self.life.state

    @property
    def reason(self) -> str | None:
        """Why it failed, as one safe line."""
        if self.error is None:
            return None
        return str(self.error) if isinstance(self.error, PluginError) else (self.traceback or "").rpartition("\n")[2]

    @property
    def methods(self) -> Mapping[str, bool]:
        """The exported methods: whether each is a stream."""
        return self._methods

    @property
    def active(self) -> int:
        """Calls that run now."""
        return self._gate.active

    @property
    def waiting(self) -> int:
        """Calls that wait for room."""
        return self._gate.waiting

    async def start(self, level: Isolation) -> None:
        """Starts the plugin at `level`; returns when it takes calls.

        Raises:
            PluginLoadError, PluginSetupError: it does not; it is failed and cleaned up.
        """
        if self._end.done():
            self.life.happen(Event.STOP)
            self.life.happen(Event.ENDED)
            raise self._stopped_early()
        self._level = level
        self.life.happen(Event.START)
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(level, started), name=f"nyx:{self.plugin}")
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            await self.stop()
            raise
        except Exception:
            await self._over()
            raise

    async def stop(self) -> None:
        """Ends the plugin; returns when nothing of it is left. Harmless in any state."""
        self.end()
        await self._over()

    def end(self) -> None:
        """Begins to end the plugin."""
        if self.life.can(Event.STOP):
            self.life.happen(Event.STOP)
        if not self._end.done():
            self._end.set_result(None)

    async def retire(self, successor: "Supervisor") -> None:
        """Ends the plugin when the calls under way are done, or have had the time of one call; `stop` cuts it short.

        Calls that begin from now on are the successor's. A stream that is not read to its end in that time is ended.
        """
        self.successor = successor
        self._methods = {}
        until = monotonic() + self._limits.call_timeout
        while (self._gate.active or self._scopes.open) and not self._end.done():
            left = until - monotonic()
            if left <= 0:
                break
            departure = self._scopes.next_departure()
            await asyncio.wait((departure, self._end), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        await self.stop()

    def crash(self, error: BaseException) -> None:
        """Fails the plugin because of something outside a call. Calls under way get `PluginCrashed`."""
        if self.state in OVER or self.state is State.STOPPING:
            _log.warning("plugin %s: failed while it was ending: %s", self.plugin, type(error).__name__)
            return
        running = self.state is State.RUNNING
        self._fail(error)
        if not self._end.done():
            self._end.set_result(None)
        if running:
            self._on_crash(error)

    def fail(self, error: BaseException) -> None:
        """Fails a plugin that was never started."""
        self._fail(error)

    def resize(self, limits: Limits) -> None:
        """Takes new limits for the calls from now on."""
        self._limits = limits
        self._gate.resize(limits.concurrency, limits.queue)

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method within the limits of the grant; see `Handle.call`."""
        # Looked at here first, for a function call is dear on this path.
        level = self._level
        if level is None or self.life.state is not _RUNNING or self._methods.get(method) is not False:
            if self.successor is not None:
                return await self.successor.call(method, arguments)
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
        if self.successor is not None:
            async with aclosing(self.successor.stream(method, arguments)) as passed_on:
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
                    if self.life.state is not State.RUNNING:
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

    def _scope(self, method: str) -> CallScope:
        return CallScope(self._scopes, method, self._limits.call_timeout)

    def _level_for(self, method: str, *, stream: bool) -> Isolation:
        """Returns the level if the method can be called now and in that way; raises otherwise."""
        level = self._level
        kind = self._methods.get(method)
        if self.life.state is not State.RUNNING or level is None:
            raise self._unavailable()
        if kind is stream:
            return level
        if kind is None:
            known = ", ".join(sorted(self._methods)) or "nothing"
            raise UnknownMethod(self.plugin, f"exports no method {method!r}; it exports {known}")
        raise UnknownMethod(self.plugin, f"{method} is {'a stream: use stream()' if kind else 'no stream: use call()'}")

    def failure(self) -> PluginCrashed:
        """Returns the error for whoever needs a plugin that has failed."""
        error = PluginCrashed(self.plugin, f"it has failed: {self.reason}")
        error.__cause__ = self.error
        return error

    def _unavailable(self) -> PluginError:
        if self.state is State.FAILED:
            return self.failure()
        if self.successor is not None:
            return self._outlived()
        return PluginStateError(self.plugin, f"it is {self.state} and takes no calls")

    def _outlived(self) -> PluginStateError:
        return PluginStateError(self.plugin, "a reload replaced it during the call, which did not end in time")

    def _stopped_early(self) -> PluginStateError:
        return PluginStateError(self.plugin, "it was stopped while it started")

    async def _run(self, level: Isolation, started: "asyncio.Future[None]") -> None:
        try:
            try:
                await self._bring_up(level)
            except Exception as error:
                if self.state is State.STARTING:  # being stopped while it starts is no failure
                    self._fail(error)
                started.set_exception(error)
                return
            started.set_result(None)
            await self._end
        finally:
            if not started.done():
                started.set_exception(self._stopped_early())
            started.exception()  # retrieved: nobody may be waiting any more
            await self._bring_down(level)

    async def _bring_up(self, level: Isolation) -> None:
        """Starts the level, unless the plugin is stopped, fails, or takes too long meanwhile."""
        starting = asyncio.ensure_future(level.start())
        try:
            await asyncio.wait(
                (starting, self._end), timeout=self._limits.setup_timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            late = not starting.done()
            for _ in range(_TIMES):  # a setup that swallows its cancellation is cancelled again
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait((starting,), timeout=_PATIENCE / _TIMES)
        if self.state is State.FAILED:
            raise PluginSetupError(self.plugin, "a background task failed during setup") from self.error
        if self._end.done():
            raise self._stopped_early()
        if late or starting.cancelled():
            cause = starting.exception() if starting.done() and not starting.cancelled() else None
            raise PluginSetupError(self.plugin, f"setup took longer than {self._limits.setup_timeout:g} s") from cause
        starting.result()
        self._methods = level.methods
        self.life.happen(Event.READY)

    async def _bring_down(self, level: Isolation) -> None:
        """Ends calls and streams, then the level. Whatever goes wrong is logged: there is nobody left to tell."""
        if self.life.can(Event.STOP):
            self.life.happen(Event.STOP)
        sparing = await self._end_calls()
        try:
            await level.stop(sparing)
        except PluginError as error:
            # Not `exc_info`: printing the plugin's exceptions runs their code, and they may say anything.
            _log.error("plugin %s: %s\n%s", self.plugin, error, level.trace(error))
        self._scopes.close()
        self._level = None
        if self.life.can(Event.ENDED):
            self.life.happen(Event.ENDED)

    async def _end_calls(self) -> "set[asyncio.Task[Any]]":
        """Cancels what runs; returns the callers that would not leave the plugin."""
        await self._scopes.end_all(self._interrupted, self.error, _PATIENCE)
        for items in tuple(self._streams):
            await self._close("stream", items)
        return {scope.task for scope in self._scopes.open}

    def _interrupted(self) -> PluginError:
        if self.error is not None:
            return PluginCrashed(self.plugin, "it failed during the call")
        if self.successor is not None:
            return self._outlived()
        return PluginStateError(self.plugin, "it was stopped during the call")

    async def _close(self, method: str, items: AsyncGenerator[Any, None]) -> None:
        try:
            with self._scope(method):
                await items.aclose()
        except (PluginError, RuntimeError) as error:  # RuntimeError: somebody else is closing it
            _log.warning("plugin %s: closing a stream of %s: %s", self.plugin, method, error)

    async def _over(self) -> None:
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.traceback = self._level.trace(error) if self._level is not None else trace_of(error)
        self.life.happen(Event.FAIL)
