"""Level `inline`: the plugin runs on the host's event loop, in the tasks of its callers.

Every step of its code is attributed to it by a context variable. Hostile code is not contained; `tripwire` describes
what is refused.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ArgsKwargs

from nyx_stream.attribution import as_host, as_plugin, running
from nyx_stream.errors import PluginCallError, PluginSetupError, PluginStateError, SandboxDenied
from nyx_stream.isolation.backend import Assignment, environment_of
from nyx_stream.isolation.capability_set import CapabilitySet, Shared
from nyx_stream.isolation.code.exports import instantiate
from nyx_stream.isolation.code.modules import PluginModules, remove_all
from nyx_stream.isolation.inline import tripwire
from nyx_stream.isolation.inline.tasks import (
    Batcher,
    PluginTasks,
    TasksByMark,
    attribute_default_executor,
    tasks_by_mark,
)
from nyx_stream.isolation.inline.tripwire_rules import ImportRoots
from nyx_stream.policy.grant import Grant
from nyx_stream.text import describe_error, escape, exception_of, format_traceback

if TYPE_CHECKING:
    from nyx_stream.isolation.code.exports import Method
    from nyx_stream.plugin import Plugin
    from nyx_stream.policy.approval import Approval


class InlineBackend:
    """Runs plugins inline. One per host, created on its event loop; the import path is read then."""

    def __init__(self, *, armed: bool, shared: Shared) -> None:
        self.armed = armed
        self.shared = shared
        self.roots = ImportRoots()
        self.task_finder: Batcher[tripwire.PluginMark, TasksByMark] = Batcher(tasks_by_mark)
        self.module_remover: Batcher[PluginModules, None] = Batcher(remove_all)
        if armed:
            tripwire.install()
            attribute_default_executor(asyncio.get_running_loop())

    def isolate(self, assignment: Assignment) -> "InlinePlugin":
        return InlinePlugin(assignment, self)

    async def aclose(self) -> None:
        """Does nothing: the plugins share nothing that needs closing."""


class InlinePlugin:
    """One plugin on the host's loop. A `PluginBackend`, and the `Context` of its plugin."""

    def __init__(self, assignment: Assignment, level: InlineBackend) -> None:
        source = assignment.source
        self.manifest = assignment.grant.manifest
        self.log = PluginLog(self.manifest.id)
        self._assignment = assignment
        self._level = level
        self._modules = PluginModules(self.manifest.id, source.root, source.names, source.digests)
        self._mark = tripwire.PluginMark(
            self.manifest.id,
            armed=level.armed,
            folder=source.folder,
            builtins=self._modules.builtins,
            roots=level.roots,
            sink=assignment.audit,
        )
        self._tasks = PluginTasks(self._mark, assignment.crashed, level.task_finder)
        self._capabilities = CapabilitySet(assignment, level.shared)
        self._env = MappingProxyType(environment_of(assignment.grant))
        self._plugin: Plugin | None = None
        self._ready = False
        self._stopping = False
        self._methods: dict[str, Method] = {}

    @property
    def methods(self) -> Mapping[str, bool]:
        return {name: method.stream for name, method in self._methods.items()}

    @property
    def env(self) -> Mapping[str, str]:
        return self._env

    def capability(self, name: str) -> Any:
        return self._capabilities.facade(name)

    async def ask(self, kind: str, target: str, why: str) -> "Approval":
        return await self._assignment.ask(kind, target, why)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        if self._stopping:
            coroutine.close()
            raise PluginStateError(self.manifest.id, "it is being stopped: no task can be started")
        return self._tasks.spawn(coroutine)

    async def start(self) -> None:
        self._capabilities.bind()
        with as_plugin(self._mark):
            self._plugin, self._methods = instantiate(self.manifest.id, self.manifest.entry, self._modules, self)
            try:
                await self._plugin.setup()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if _is_our_cancellation(error):
                    raise
                raise PluginSetupError(self.manifest.id, f"setup raised {describe_error(error)}") from error
        self._ready = True

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        token = running.set(self._mark)
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
        with as_plugin(self._mark):
            try:
                items = target.begin(ArgsKwargs((), arguments), from_attributes=True)  # type: ignore[arg-type]
            except ValidationError as error:
                raise target.invalid_arguments(error) from error
        try:
            while True:
                with as_plugin(self._mark):
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
            with as_plugin(self._mark):
                try:
                    await items.aclose()
                except (asyncio.CancelledError, KeyboardInterrupt):
                    raise
                except BaseException as error:  # not the consumer's concern: it has all the items it wanted
                    self.log.warning("%s: closing the stream raised", method, exc_info=error)

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        failure = await self._tear_down()
        self._stopping = True
        try:
            await self._tasks.end(sparing)
            for error in await self._capabilities.close("the plugin was unloaded"):
                self.log.error("closing a capability failed: %s", self.trace(error))
        finally:
            self._plugin = None
            self._methods.clear()
            await self._level.module_remover.submit(self._modules)
        if failure is not None:
            raise failure

    def update(self, grant: Grant) -> None:
        self._env = MappingProxyType(environment_of(grant))
        self._capabilities.policy_changed()

    def trace(self, error: BaseException) -> str:
        with as_plugin(self._mark):  # formatting an exception runs the plugin's code
            return format_traceback(error)

    async def _tear_down(self) -> PluginCallError | None:
        """Runs `teardown` if `setup` has succeeded, with the same time limit; returns its failure, if any."""
        if self._plugin is None or not self._ready:
            return None
        limit = self._assignment.grant.limits.setup_timeout
        with as_plugin(self._mark):
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
                failure = self._raised("teardown", error)
                failure.__cause__ = error
                return failure
        return None

    def _raised(self, what: str, error: BaseException) -> PluginCallError:
        return PluginCallError(self.manifest.id, f"{what} raised {describe_error(error)}")


def _is_our_cancellation(error: BaseException) -> bool:
    """Whether this task was cancelled; a plugin can raise `CancelledError` itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


class PluginLog(logging.LoggerAdapter[logging.Logger]):
    """The logger that a plugin sees: logs to `nyx.plugin.<id>`, with control characters escaped.

    The message is formatted as the plugin, whose `__str__` may run, and passed to the host's handlers as the host: a
    handler may open its file.
    """

    def __init__(self, plugin: str) -> None:
        super().__init__(logging.getLogger(f"nyx.plugin.{plugin}"), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `logging.Logger.log`; ignores `extra` and `stack_info`."""
        if not self.isEnabledFor(level):
            return
        text = escape(str(msg) % args if args else str(msg))
        if (error := exception_of(kwargs.get("exc_info"))) is not None:
            text = f"{text}\n{format_traceback(error)}"
        with as_host():
            self.logger.log(level, "%s", text, stacklevel=kwargs.get("stacklevel", 1) + 1)
