"""Level `inline`: the plugin runs on the host's event loop, in the tasks of its callers.

Its code is attributed by a context variable around every step of it. Nothing here contains hostile code; see
`tripwire` for what is refused. Knows nothing of states, queues and timeouts.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ArgsKwargs

from nyx_stream.attribution import as_host, as_plugin, running
from nyx_stream.errors import (
    PluginCallError,
    PluginSetupError,
    PluginStateError,
    SandboxDenied,
)
from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.capability_set import CapabilitySet, Shared
from nyx_stream.isolation.code.exception_text import describe, trace_of
from nyx_stream.isolation.code.instance import instantiate
from nyx_stream.isolation.code.modules import PluginModules, remove_all
from nyx_stream.isolation.inline.batcher import Batcher
from nyx_stream.isolation.inline.executor import attribute_default_executor
from nyx_stream.isolation.inline.log import PluginLog
from nyx_stream.isolation.inline.tasks import Census, PluginTasks, take_census
from nyx_stream.isolation.inline.tripwire import hook as tripwire
from nyx_stream.isolation.inline.tripwire.permits import Roots
from nyx_stream.policy.grant import Grant

if TYPE_CHECKING:
    from nyx_stream.isolation.code.exports import Method
    from nyx_stream.plugin import Plugin
    from nyx_stream.policy.approval import Approval


class InlineBackend:
    """Runs plugins inline. One per host, made on its event loop; remembers the import path as it is then."""

    def __init__(self, *, armed: bool, shared: Shared) -> None:
        self.armed = armed
        self.shared = shared
        self.roots = Roots()
        self.census: Census = Batcher(take_census)
        self.removal: Batcher[PluginModules, None] = Batcher(remove_all)
        if armed:
            tripwire.install()
            attribute_default_executor(asyncio.get_running_loop())

    def isolate(self, assignment: Assignment) -> "InlinePlugin":
        """Prepares one plugin; nothing of it runs yet."""
        return InlinePlugin(assignment, self)

    async def aclose(self) -> None:
        """Nothing is shared."""


class InlinePlugin:
    """One plugin on the host's loop. An `Isolation`, and the `Context` of its plugin."""

    def __init__(self, assignment: Assignment, level: InlineBackend) -> None:
        source = assignment.source
        self.manifest = assignment.grant.manifest
        self.log = PluginLog(self.manifest.id)
        self._assignment = assignment
        self._modules = PluginModules(self.manifest.id, source.root, source.names, source.digests)
        self._watch = tripwire.PluginMark(
            self.manifest.id,
            armed=level.armed,
            folder=source.folder,
            names=self._modules.names,
            roots=level.roots,
            sink=assignment.audit,
        )
        self._tasks = PluginTasks(self._watch, assignment.crashed, level.census)
        self._removal = level.removal
        self._provision = CapabilitySet(assignment, level.shared)
        self._env = _environment(assignment.grant)
        self._plugin: Plugin | None = None
        self._ready = False
        self._ended = False
        self._methods: dict[str, Method] = {}

    @property
    def methods(self) -> Mapping[str, bool]:
        return {name: method.stream for name, method in self._methods.items()}

    @property
    def env(self) -> Mapping[str, str]:
        return self._env

    def capability(self, name: str) -> Any:
        return self._provision.facade(name)

    async def ask(self, kind: str, target: str, why: str) -> "Approval":
        return await self._assignment.ask(kind, target, why)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        if self._ended:
            coroutine.close()
            raise PluginStateError(self.manifest.id, "it is being stopped: no task can be started")
        return self._tasks.spawn(coroutine)

    async def start(self) -> None:
        self._provision.bind()
        with as_plugin(self._watch):
            self._load()
            await self._set_up()
        self._ready = True

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        token = running.set(self._watch)
        try:
            target = self._methods[method]
            try:
                coroutine = target.begin(ArgsKwargs((), arguments), from_attributes=True)  # type: ignore[arg-type]
            except ValidationError as error:
                raise target.invalid_arguments(error) from error
            try:
                value = await coroutine
            except (SandboxDenied, asyncio.CancelledError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise self._raised(method, error) from error
            try:
                return target.check(value, from_attributes=True)
            except ValidationError as error:
                raise target.invalid_result(error) from error
        finally:
            running.reset(token)

    async def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        target = self._methods[method]
        with as_plugin(self._watch):
            try:
                items = target.begin(ArgsKwargs((), arguments), from_attributes=True)  # type: ignore[arg-type]
            except ValidationError as error:
                raise target.invalid_arguments(error) from error
        try:
            while True:
                with as_plugin(self._watch):
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                    except (SandboxDenied, asyncio.CancelledError, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        raise self._raised(method, error) from error
                    try:
                        item = target.check(item, from_attributes=True)
                    except ValidationError as error:
                        raise target.invalid_result(error) from error
                yield item
        finally:
            await self._close(method, items)

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        failure = await self._tear_down()
        self._ended = True
        try:
            await self._tasks.end(sparing)
            for error in await self._provision.close("the plugin was unloaded"):
                self.log.error("closing a capability failed: %s", self.trace(error))
        finally:
            self._plugin = None
            self._methods.clear()
            await self._removal.ask(self._modules)
        if failure is not None:
            raise failure

    def update(self, grant: Grant) -> None:
        self._env = _environment(grant)
        self._provision.policy_changed()

    def trace(self, error: BaseException) -> str:
        with as_plugin(self._watch):  # the texts of its exceptions are its code
            return trace_of(error)

    def _load(self) -> None:
        manifest = self.manifest
        self._plugin, self._methods = instantiate(manifest.id, manifest.entry, self._modules, self)

    async def _set_up(self) -> None:
        if self._plugin is None:
            raise PluginStateError(self.manifest.id, "it is not loaded")
        try:
            await self._plugin.setup()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if _is_our_cancellation(error):
                raise
            raise PluginSetupError(self.manifest.id, f"setup raised {describe(error)}") from error

    async def _tear_down(self) -> PluginCallError | None:
        """Runs `teardown` if `setup` was done, for as long as a setup may take; returns what went wrong."""
        if self._plugin is None or not self._ready:
            return None
        limit = self._assignment.grant.limits.setup_timeout
        with as_plugin(self._watch):
            try:
                async with asyncio.timeout(limit) as scope:
                    await self._plugin.teardown()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if scope.expired():
                    return PluginCallError(self.manifest.id, f"teardown took longer than {limit:g} s")
                if _is_our_cancellation(error):
                    raise
                return self._raised("teardown", error, error)
        return None

    async def _close(self, method: str, items: AsyncGenerator[Any, None]) -> None:
        with as_plugin(self._watch):
            try:
                await items.aclose()
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise
            except BaseException as error:  # the stream is over: its consumer has what it wanted
                self.log.warning("%s: closing the stream raised", method, exc_info=error)

    def _raised(self, what: str, error: BaseException, cause: BaseException | None = None) -> PluginCallError:
        failure = PluginCallError(self.manifest.id, f"{what} raised {describe(error)}")
        failure.__cause__ = cause
        return failure


def _is_our_cancellation(error: BaseException) -> bool:
    """Whether somebody cancelled this task; a plugin can raise `CancelledError` by itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _environment(grant: Grant) -> Mapping[str, str]:
    with as_host():
        return MappingProxyType({name: os.environ[name] for name in grant.env if name in os.environ})
