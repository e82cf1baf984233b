"""The interface through which a host reports each call to an observer, such as a tracer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nyx_stream.isolation.backend import Level

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
    """Calls an observer, and keeps its exceptions away from the calls. The first exception is logged."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failed = False

    def begin(self, call: Call) -> "SafeObservation":
        """Reports a call that begins."""
        try:
            return SafeObservation(self, self._observer.begin(call))
        except Exception as error:
            self.report(error)
            return SafeObservation(self, None)

    def report(self, error: Exception) -> None:
        """Logs the first exception of the observer."""
        if not self._failed:
            self._failed = True
            name = type(self._observer).__name__
            _log.error("observer %s raised; its further exceptions are not logged", name, exc_info=error)


class SafeObservation:
    """An observation whose methods never raise; without an observation, they do nothing."""

    def __init__(self, observer: SafeObserver, observation: Observation | None) -> None:
        self._observer = observer
        self._observation = observation

    def enter(self) -> None:
        """Reports that the task enters the plugin."""
        if self._observation is not None:
            self._run(self._observation.enter)

    def leave(self) -> None:
        """Reports that the task has left the plugin."""
        if self._observation is not None:
            self._run(self._observation.leave)

    def end(self, error: BaseException | None) -> None:
        """Reports the end of the call."""
        if (observation := self._observation) is not None:
            self._run(lambda: observation.end(error))

    def _run(self, method: Callable[[], None]) -> None:
        try:
            method()
        except Exception as error:
            self._observer.report(error)
