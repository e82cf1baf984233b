"""The audit trail of a host: the logs that it opens and closes, the logs that it was given, and further sinks."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from nyx_stream.audit import AuditEvent, AuditLog, AuditSink
from nyx_stream.audit.event import Kind
from nyx_stream.audit.log import AuditOptions
from nyx_stream.audit.sinks import IsolatedSink, combine
from nyx_stream.errors import AuditError, PluginError, PluginStateError

_log = logging.getLogger("nyx.audit")

_Target: TypeAlias = str | os.PathLike[str] | AuditLog | AuditSink
AuditTarget: TypeAlias = _Target | Sequence[_Target] | None
"""Where events go: the path of a log, a log, a sink, several of them, or `None` for no audit."""


class AuditTrail:
    """The audit trail of one host.

    Args:
        audit: where events go. The trail doesn't close a log that it is given.
        options: for the logs that it opens from their paths.

    Raises:
        TypeError: a sink is a coroutine function.
    """

    def __init__(self, audit: AuditTarget, options: AuditOptions) -> None:
        self.sink: AuditSink | None = None
        """Takes the host's events between `open` and `aclose`, and never raises; `None` for a host without an audit."""
        self.configure(audit, options)
        self._logs: list[AuditLog] = []
        self._releases: list[Callable[[], object]] = []

    def configure(self, audit: AuditTarget, options: AuditOptions) -> None:
        """Sets where events go after the next `open`. Raises `TypeError` as the constructor."""
        self._targets: list[str | os.PathLike[str] | AuditLog | IsolatedSink] = [
            IsolatedSink(target) if callable(target) and not isinstance(target, IsolatedSink) else target
            for target in as_targets(audit)
        ]
        self._options = options

    def open(self, stop: Callable[[AuditError], None]) -> None:
        """Opens the logs. `stop` is called on the running loop when a log with `when_full="stop-plugins"` fails.

        Raises:
            AuditError: a log can't be opened.
        """
        sinks: list[AuditSink] = []
        try:
            for target in self._targets:
                if isinstance(target, IsolatedSink):
                    sinks.append(target)
                    continue
                log = target if isinstance(target, AuditLog) else AuditLog.open(target, **self._options)
                self._logs.append(log)
                sinks.append(log.record)
        except BaseException:
            for log in self._own_logs():
                log.close()
            self._logs.clear()
            raise
        for log in self._logs:
            if log.when_full == "stop-plugins":
                self._releases.append(log.watch(partial(_notify, asyncio.get_running_loop(), stop, log)))
        self.sink = combine(tuple(sinks)) if sinks else None

    async def aclose(self) -> None:
        """Closes the logs that `open` opened.

        Raises:
            AuditError: events were lost.
        """
        self.sink = None
        for release in self._releases:
            release()
        own_logs = self._own_logs()
        self._releases, self._logs = [], []
        errors: list[AuditError] = []
        for log in own_logs:
            try:
                await log.aclose()
            except AuditError as error:
                errors.append(error)
        for target in self._targets:
            if isinstance(target, IsolatedSink) and target.failed:
                _log.error("audit sink %s did not take %d events", target.name, target.failed)
        for further in errors[1:]:
            _log.error("%s", further)
        if errors:
            raise errors[0]

    @property
    def lost(self) -> Mapping[str, int]:
        """The number of events lost, by the path of a log or the name of a sink."""
        lost: dict[str, int] = {}
        for target in (*self._logs, *self._targets):
            if isinstance(target, IsolatedSink):
                lost[target.name] = lost.get(target.name, 0) + target.failed
            elif isinstance(target, AuditLog):
                lost[target.path] = target.lost
        return lost

    def require_working(self, plugin: str) -> None:
        """Raises `PluginStateError` if no plugin may start, because a log can't record events."""
        for log in self._logs:
            if log.when_full == "stop-plugins" and (error := log.failure) is not None:
                raise PluginStateError(plugin, f"not started: {_failure(log, error)}") from error

    def record(
        self,
        plugin: str,
        action: str,
        target: str,
        error: BaseException | None = None,
        reason: str = "",
        kind: Kind = "lifecycle",
    ) -> None:
        """Records an operation of the host on a plugin: `error` if it failed, `reason` in words."""
        if self.sink is None:
            return
        why = reason or (str(error) if isinstance(error, PluginError) else type(error).__name__ if error else "done")
        self.sink(AuditEvent(time.time(), plugin, "plugin", action, target, error is None, None, why, "host", kind))

    def _own_logs(self) -> list[AuditLog]:
        return [log for log in self._logs if not any(log is target for target in self._targets)]


def as_targets(audit: AuditTarget) -> Sequence[_Target]:
    """Returns `audit` as a sequence of single targets."""
    if audit is None:
        return ()
    if isinstance(audit, (str, os.PathLike, AuditLog)) or callable(audit):
        return (audit,)
    return audit


def _notify(loop: asyncio.AbstractEventLoop, stop: Callable[[AuditError], None], log: AuditLog, error: OSError) -> None:
    loop.call_soon_threadsafe(stop, _failure(log, error))


def _failure(log: AuditLog, error: OSError) -> AuditError:
    failure = AuditError(log.path, f"takes no events: {error}")
    failure.__cause__ = error
    return failure
