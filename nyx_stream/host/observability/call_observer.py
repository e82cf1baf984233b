"""Telling an observer of every call, from outside the path of a call: a host without one has plain handles.

What an observer raises is told once and hurts no call. Knows nothing of what an observer does.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nyx_stream.host.handle import Handle
from nyx_stream.isolation.backend import Level

if TYPE_CHECKING:
    from nyx_stream.host.host import PluginHost
    from nyx_stream.host.runtime.plugin_record import PluginRecord

_log = logging.getLogger("nyx.host")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that begins. `method` is `None` for a name that the plugin does not export."""

    plugin: str
    version: str
    isolation: Level
    method: str | None
    stream: bool


class Observation(Protocol):
    """One call, as an observer sees it. All of it is called in the caller's task, on the event loop."""

    def enter(self) -> None:
        """The task goes into the plugin: once for a call, for each item of a stream."""

    def leave(self) -> None:
        """The task has come out of it."""

    def end(self, error: BaseException | None) -> None:
        """The call is over: with what its caller gets, or with a result."""


class Observer(Protocol):
    """Is told of each call of a host's plugins: `PluginHost(observer=...)`."""

    def begin(self, call: Call) -> Observation:
        """A call begins."""


class ObservedHandle(Handle):
    """A handle that tells an observer."""

    __slots__ = ("_observer",)

    def __init__(self, host: "PluginHost", entry: "PluginRecord", observer: Observer) -> None:
        super().__init__(host, entry)
        self._observer = _Careful(observer)

    async def call(self, method: str, /, **arguments: Any) -> Any:
        observation = self._observer.begin(self._call(method, stream=False))
        observation.enter()
        try:
            result = await super().call(method, **arguments)
        except BaseException as error:
            observation.leave()
            observation.end(error)
            raise
        observation.leave()
        observation.end(None)
        return result

    async def stream(self, method: str, /, **arguments: Any) -> AsyncGenerator[Any, None]:
        observation = self._observer.begin(self._call(method, stream=True))
        failure: BaseException | None = None
        try:
            async with aclosing(super().stream(method, **arguments)) as items:
                while True:
                    observation.enter()
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                    finally:
                        observation.leave()
                    yield item
        except GeneratorExit:  # its reader has enough
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            observation.end(failure)

    def _call(self, method: str, *, stream: bool) -> Call:
        entry = self._entry
        known = entry.dispatcher is not None and method in entry.dispatcher.methods
        return Call(entry.id, entry.source.manifest.version, entry.isolation, method if known else None, stream)


class _Careful:
    """An observer that never raises, around one that may."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failed = False

    def begin(self, call: Call) -> "_CarefulObservation":
        try:
            return _CarefulObservation(self, self._observer.begin(call))
        except Exception as error:
            self.tell(error)
            return _CarefulObservation(self, None)

    def tell(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            _log.error("observer %s raised; this is not told again", type(self._observer).__name__, exc_info=error)


class _CarefulObservation:
    def __init__(self, observer: _Careful, observation: Observation | None) -> None:
        self._observer = observer
        self._observation = observation

    def enter(self) -> None:
        if self._observation is not None:
            try:
                self._observation.enter()
            except Exception as error:
                self._observer.tell(error)

    def leave(self) -> None:
        if self._observation is not None:
            try:
                self._observation.leave()
            except Exception as error:
                self._observer.tell(error)

    def end(self, outcome: BaseException | None) -> None:
        if self._observation is not None:
            try:
                self._observation.end(outcome)
            except Exception as error:
                self._observer.tell(error)
