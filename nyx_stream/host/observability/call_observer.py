"""The interface through which a host reports each call to an observer, such as a tracer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nyx_stream.isolation.backend import Level

_T = TypeVar("_T")
_log = logging.getLogger("nyx.host")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that begins. `method` is `None` for a name that the plugin doesn't export."""

    plugin: str
    version: str
    isolation: Level
    method: str | None
    stream: bool


class Observation(Protocol):
    """One call, as an observer sees it. The host calls every method in the caller's task, on the event loop."""

    def enter(self) -> None:
        """The task enters the plugin: once for a call, and once for each item of a stream."""

    def leave(self) -> None:
        """The task has left the plugin."""

    def end(self, error: BaseException | None) -> None:
        """The call has ended with the error that its caller gets, or with a result."""


class Observer(Protocol):
    """Gets each call of a host's plugins: `PluginHost(observer=...)`."""

    def begin(self, call: Call) -> Observation:
        """A call begins."""


class SafeObserver:
    """Calls an observer, and keeps its exceptions away from the observed call. Only the first one is logged."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failed = False

    def begin(self, call: Call) -> Observation | None:
        """Reports that a call begins; returns its observation, or `None` if the observer raised."""
        return self._run(self._observer.begin, call)

    def enter(self, observation: Observation | None) -> None:
        """Reports that the task enters the plugin."""
        if observation is not None:
            self._run(observation.enter)

    def leave(self, observation: Observation | None) -> None:
        """Reports that the task has left the plugin."""
        if observation is not None:
            self._run(observation.leave)

    def end(self, observation: Observation | None, error: BaseException | None) -> None:
        """Reports that the call has ended."""
        if observation is not None:
            self._run(observation.end, error)

    def _run(self, method: Callable[..., _T], *arguments: object) -> _T | None:
        try:
            return method(*arguments)
        except Exception as error:
            if not self._failed:
                self._failed = True
                name = type(self._observer).__name__
                _log.error("observer %s raised; its further exceptions are not logged", name, exc_info=error)
            return None
