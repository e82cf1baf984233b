"""Where a host's events go: logs that it opens and closes, logs that it was given, and any sinks. Knows no plugin."""

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

_One: TypeAlias = str | os.PathLike[str] | AuditLog | AuditSink
AuditTarget: TypeAlias = _One | Sequence[_One] | None
"""Where events go: the path of a log, a log, a sink, several of them, or `None` for nowhere."""


class AuditTrail:
    """The audit of one host.

    Args:
        audit: a log that is given here stays its owner's to close.
        options: for logs that are opened from their paths.

    Raises:
        TypeError: a sink is a coroutine function.
    """

    def __init__(self, audit: AuditTarget, options: AuditOptions) -> None:
        self.sink: AuditSink | None = None
        """Takes the host's events between `open` and `aclose`, and never raises; `None` for a host without audit."""
        self.keep_in(audit, options)
        self._logs: list[AuditLog] = []
        self._releases: list[Callable[[], object]] = []

    def keep_in(self, audit: AuditTarget, options: AuditOptions) -> None:
        """Sets where events go from the next `open` on. Raises `TypeError` as the constructor."""
        self._targets: list[str | os.PathLike[str] | AuditLog | IsolatedSink] = [
            IsolatedSink(one) if callable(one) and not isinstance(one, IsolatedSink) else one for one in several(audit)
        ]
        self._options = options

    def open(self, stop: Callable[[AuditError], None]) -> None:
        """Begins. `stop` is called on the running loop when the policy of a log says that plugins must stop.

        Raises:
            AuditError: a log cannot be opened.
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
            for log in self._ours():
                log.close()
            self._logs.clear()
            raise
        for log in self._logs:
            if log.when_full == "stop-plugins":
                self._releases.append(log.watch(partial(_tell, asyncio.get_running_loop(), stop, log)))
        self.sink = combine(tuple(sinks)) if sinks else None

    async def aclose(self) -> None:
        """Ends; closes the logs that `open` opened.

        Raises:
            AuditError: events were lost.
        """
        self.sink = None
        for release in self._releases:
            release()
        ours = self._ours()
        self._releases, self._logs = [], []
        errors: list[AuditError] = []
        for log in ours:
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
        """By sink, the path of a log or the name of a callable: events that it did not take."""
        lost: dict[str, int] = {}
        for target in (*self._logs, *self._targets):
            if isinstance(target, IsolatedSink):
                lost[target.name] = lost.get(target.name, 0) + target.failed
            elif isinstance(target, AuditLog):
                lost[target.path] = target.lost
        return lost

    def must_take(self, plugin: str) -> None:
        """Raises `PluginStateError` if no plugin may start, because a log takes no events."""
        for log in self._logs:
            if log.when_full == "stop-plugins" and (error := log.failure) is not None:
                raise PluginStateError(plugin, f"not started: {_stopped(log, error)}") from error

    def record(
        self,
        plugin: str,
        action: str,
        target: str,
        error: BaseException | None = None,
        reason: str = "",
        kind: Kind = "lifecycle",
    ) -> None:
        """Records an act of the host, and how it ended."""
        if self.sink is None:
            return
        why = reason or (str(error) if isinstance(error, PluginError) else type(error).__name__ if error else "done")
        self.sink(AuditEvent(time.time(), plugin, "plugin", action, target, error is None, None, why, "host", kind))

    def _ours(self) -> list[AuditLog]:
        return [log for log in self._logs if not any(log is target for target in self._targets)]


def several(audit: AuditTarget) -> Sequence[_One]:
    """Returns the targets one by one."""
    if audit is None:
        return ()
    if isinstance(audit, (str, os.PathLike, AuditLog)) or callable(audit):
        return (audit,)
    return audit


def _tell(loop: asyncio.AbstractEventLoop, stop: Callable[[AuditError], None], log: AuditLog, error: OSError) -> None:
    loop.call_soon_threadsafe(stop, _stopped(log, error))


def _stopped(log: AuditLog, error: OSError) -> AuditError:
    failure = AuditError(log.path, f"takes no events: {error}")
    failure.__cause__ = error
    return failure
