"""One run of a plugin: one version under one grant, from before its start until everything it used is released.

Theory of operation: a separate task owns the run. It starts the backend, waits until `_stop_requested` is done, then
ends the calls and stops the backend, however the run came to its end. So a run is cleaned up in one place, and
cancelling a caller of `start` or `stop` can't interrupt that. `request_stop` and `crash` complete `_stop_requested`.
"""

import asyncio
import logging
from collections.abc import Callable

from nyx_stream.audit import AuditSink
from nyx_stream.errors import PluginCrashed, PluginError, PluginSetupError, PluginStateError
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.observability.metrics import CallCount, State
from nyx_stream.host.runtime.dispatcher import Dispatcher
from nyx_stream.host.runtime.leases import LeaseSet
from nyx_stream.host.runtime.lifecycle import FINAL, Event, Lifecycle
from nyx_stream.isolation.backend import PluginBackend, PluginSource
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant
from nyx_stream.text import format_traceback

_log = logging.getLogger("nyx.host")

_PATIENCE = 5.0
"""Seconds for calls to end after they were cancelled."""

_SETUP_CANCELS = 5
"""How often a setup that suppresses its cancellation is cancelled within `_PATIENCE`."""


class PluginRun:
    """Runs a plugin once.

    Args:
        source: the version that runs.
        policy: what the operator granted, without approvals.
        grant: what the plugin gets.
        guard: decides for it.
        leases: of its version; a run after a crash continues under the leases of the run before.
        audit: where its decisions are recorded.
        count: counts its calls.
        on_crash: called with the run and the error if it fails after it was running.
    """

    def __init__(
        self,
        source: PluginSource,
        policy: SandboxPolicy,
        grant: Grant,
        guard: SandboxGuard,
        leases: LeaseSet,
        audit: AuditSink | None,
        count: CallCount,
        on_crash: Callable[["PluginRun", BaseException], None],
    ) -> None:
        self.plugin = source.manifest.id
        self.source = source
        self.policy = policy
        """During a reload, the runs of a plugin may have different policies."""
        self.grant = grant
        self.guard = guard
        self.leases = leases
        self.audit = audit
        self.lifecycle = Lifecycle(self.plugin)
        self.dispatcher = Dispatcher(self.lifecycle, grant.limits, count, self.failure)
        self.backend: PluginBackend | None = None
        """The plugin at its isolation level, from just before the start until it has ended."""
        self.error: BaseException | None = None
        """Why it failed."""
        self.traceback: str | None = None
        """Where it failed, safe to print."""
        self._setup_timeout = grant.limits.setup_timeout
        self._on_crash = on_crash
        self._task: asyncio.Task[None] | None = None
        self._stop_requested: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def state(self) -> State:
        """The state of the run."""
        return self.lifecycle.state

    @property
    def is_running(self) -> bool:
        """Whether it takes calls, or finishes those that it has."""
        return self.lifecycle.state is State.RUNNING

    @property
    def reason(self) -> str | None:
        """Why it failed, as one line that is safe to print."""
        if self.error is None:
            return None
        return str(self.error) if isinstance(self.error, PluginError) else (self.traceback or "").rpartition("\n")[2]

    async def start(self, backend: PluginBackend) -> None:
        """Starts the plugin in `backend`; returns when it takes calls.

        Raises:
            PluginLoadError, PluginSetupError: it didn't start; it has failed and is cleaned up.
        """
        self.backend = backend
        if self._stop_requested.done():
            self.lifecycle.apply(Event.STOP)
            self.lifecycle.apply(Event.ENDED)
            raise self._stopped_early()
        self.lifecycle.apply(Event.START)
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(backend, started), name=f"nyx:{self.plugin}")
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            await self.stop()
            raise
        except Exception:
            await self._wait_ended()
            raise

    async def stop(self) -> None:
        """Ends the plugin; returns when it is cleaned up. Can be called in any state."""
        self.request_stop()
        await self._wait_ended()

    def request_stop(self) -> None:
        """Begins to end the plugin."""
        if self.lifecycle.allows(Event.STOP):
            self.lifecycle.apply(Event.STOP)
        if not self._stop_requested.done():
            self._stop_requested.set_result(None)

    async def retire(self, successor: "PluginRun") -> None:
        """Drains the run, then ends it. `request_stop` cuts that short.

        New calls go to the successor. Running calls and streams get the time of one call to end.
        """
        self.dispatcher.forward_to(successor.dispatcher)
        await self.dispatcher.drain(self._stop_requested)
        await self.stop()

    def crash(self, error: BaseException) -> None:
        """Fails the plugin because of an error outside a call. Running calls get `PluginCrashed`."""
        if self.state in FINAL or self.state is State.STOPPING:
            _log.warning("plugin %s: failed while it was ending: %s", self.plugin, type(error).__name__)
            return
        was_running = self.is_running
        self.fail(error)
        if not self._stop_requested.done():
            self._stop_requested.set_result(None)
        if was_running:
            self._on_crash(self, error)

    def fail(self, error: BaseException) -> None:
        """Records the failure, without ending anything."""
        self.error = error
        self.traceback = self.backend.trace(error) if self.backend is not None else format_traceback(error)
        self.lifecycle.apply(Event.FAIL)

    def failure(self) -> PluginCrashed:
        """Returns the error for callers of a plugin that has failed."""
        error = PluginCrashed(self.plugin, f"it has failed: {self.reason}")
        error.__cause__ = self.error
        return error

    def apply_policy(self, policy: SandboxPolicy, effective: SandboxPolicy, grant: Grant) -> None:
        """Puts another policy in force. The next check sees all of it.

        Args:
            policy: what the operator granted.
            effective: that policy with approvals added.
            grant: what the plugin gets under it.
        """
        self.leases.apply_policy(self.guard.policy, effective)
        self.guard.update(effective)
        self.policy, self.grant = policy, grant
        if self.is_running and self.backend is not None:
            self.backend.update(grant)
            self.dispatcher.resize(grant.limits)

    def _stopped_early(self) -> PluginStateError:
        return PluginStateError(self.plugin, "it was stopped while it started")

    async def _run(self, backend: PluginBackend, started: "asyncio.Future[None]") -> None:
        try:
            try:
                await self._set_up(backend)
            except Exception as error:
                if self.state is State.STARTING:  # a stop during the start isn't a failure
                    self.fail(error)
                started.set_exception(error)
                return
            started.set_result(None)
            await self._stop_requested
        finally:
            if not started.done():
                started.set_exception(self._stopped_early())
            started.exception()  # marks it as retrieved: the caller of `start` may be gone
            await self._tear_down(backend)

    async def _set_up(self, backend: PluginBackend) -> None:
        """Starts the backend, unless the plugin is stopped, fails, or takes too long."""
        timeout = self._setup_timeout
        starting = asyncio.ensure_future(backend.start())
        try:
            await asyncio.wait((starting, self._stop_requested), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late = not starting.done()
            for _ in range(_SETUP_CANCELS):
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait((starting,), timeout=_PATIENCE / _SETUP_CANCELS)
        if self.state is State.FAILED:
            raise PluginSetupError(self.plugin, "a background task failed during setup") from self.error
        if self._stop_requested.done():
            raise self._stopped_early()
        if late or starting.cancelled():
            cause = starting.exception() if starting.done() and not starting.cancelled() else None
            raise PluginSetupError(self.plugin, f"setup took longer than {timeout:g} s") from cause
        starting.result()
        self.dispatcher.open(backend)
        self.lifecycle.apply(Event.READY)

    async def _tear_down(self, backend: PluginBackend) -> None:
        """Ends calls and streams, then the backend. Errors are logged, because no caller waits for them."""
        if self.lifecycle.allows(Event.STOP):
            self.lifecycle.apply(Event.STOP)
        stuck_callers = await self.dispatcher.end_calls(self.error, _PATIENCE)
        try:
            await backend.stop(stuck_callers)
        except PluginError as error:
            # Not `exc_info`: printing an exception of the plugin runs the plugin's code.
            _log.error("plugin %s: %s\n%s", self.plugin, error, backend.trace(error))
        self.dispatcher.close()
        self.backend = None
        if self.lifecycle.allows(Event.ENDED):
            self.lifecycle.apply(Event.ENDED)

    async def _wait_ended(self) -> None:
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error
