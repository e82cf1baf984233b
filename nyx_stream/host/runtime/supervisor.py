"""One life of one plugin: its state, and the task that starts it, waits for its end, and cleans up.

Talks to the isolation level through `seam.PluginBackend` only. Knows nothing of other plugins, of files or of policies;
of its calls, that they are to end.
"""

import asyncio
import logging
from collections.abc import Callable

from nyx_stream.errors import PluginCrashed, PluginError, PluginSetupError, PluginStateError
from nyx_stream.host.runtime.dispatcher import Dispatcher
from nyx_stream.host.runtime.lifecycle import OVER, Event, Lifecycle, State
from nyx_stream.host.runtime.limits import CallCount
from nyx_stream.isolation.backend import PluginBackend
from nyx_stream.policy import Limits
from nyx_stream.text import format_traceback

_log = logging.getLogger("nyx.host")

_PATIENCE = 5.0
"""Seconds that calls get to leave the plugin after they were cancelled."""

_TIMES = 5
"""How often a setup is cancelled within `_PATIENCE`."""


class Supervisor:
    """Runs a plugin once. `on_crash` is called when it fails after it was running."""

    def __init__(
        self, plugin: str, limits: Limits, count: CallCount, on_crash: Callable[[BaseException], None]
    ) -> None:
        self.plugin = plugin
        self.life = Lifecycle(plugin)
        self.dispatcher = Dispatcher(self.life, limits, count, self.failure)
        """Takes its calls."""
        self.error: BaseException | None = None
        """Why it failed."""
        self.traceback: str | None = None
        self._setup_timeout = limits.setup_timeout
        self._on_crash = on_crash
        self._level: PluginBackend | None = None
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

    async def start(self, level: PluginBackend) -> None:
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
        self.dispatcher.pass_on(successor.dispatcher)
        await self.dispatcher.drain(self._end)
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

    def failure(self) -> PluginCrashed:
        """Returns the error for whoever needs a plugin that has failed."""
        error = PluginCrashed(self.plugin, f"it has failed: {self.reason}")
        error.__cause__ = self.error
        return error

    def _stopped_early(self) -> PluginStateError:
        return PluginStateError(self.plugin, "it was stopped while it started")

    async def _run(self, level: PluginBackend, started: "asyncio.Future[None]") -> None:
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

    async def _bring_up(self, level: PluginBackend) -> None:
        """Starts the level, unless the plugin is stopped, fails, or takes too long meanwhile."""
        starting = asyncio.ensure_future(level.start())
        try:
            await asyncio.wait((starting, self._end), timeout=self._setup_timeout, return_when=asyncio.FIRST_COMPLETED)
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
            raise PluginSetupError(self.plugin, f"setup took longer than {self._setup_timeout:g} s") from cause
        starting.result()
        self.dispatcher.open(level)
        self.life.happen(Event.READY)

    async def _bring_down(self, level: PluginBackend) -> None:
        """Ends calls and streams, then the level. Whatever goes wrong is logged: there is nobody left to tell."""
        if self.life.can(Event.STOP):
            self.life.happen(Event.STOP)
        sparing = await self.dispatcher.end_calls(self.error, _PATIENCE)
        try:
            await level.stop(sparing)
        except PluginError as error:
            # Not `exc_info`: printing the plugin's exceptions runs their code, and they may say anything.
            _log.error("plugin %s: %s\n%s", self.plugin, error, level.trace(error))
        self.dispatcher.close()
        self._level = None
        if self.life.can(Event.ENDED):
            self.life.happen(Event.ENDED)

    async def _over(self) -> None:
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.traceback = self._level.trace(error) if self._level is not None else format_traceback(error)
        self.life.happen(Event.FAIL)
