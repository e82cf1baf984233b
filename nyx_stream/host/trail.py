"""Where a host's events go: a log that it opens and closes, one that it was given, or any sink. Knows no plugin."""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial

from nyx_stream.audit import AuditEvent, AuditLog, AuditSink
from nyx_stream.audit.event import Kind
from nyx_stream.audit.log import AuditOptions
from nyx_stream.errors import AuditError, PluginError, PluginStateError


class Trail:
    """The audit of one host.

    Args:
        audit: path of a log, a log, a sink, or `None`. A log that was given stays its owner's to close.
        options: for a log that is opened from its path.
    """

    def __init__(self, audit: str | os.PathLike[str] | AuditLog | AuditSink | None, options: AuditOptions) -> None:
        self.sink: AuditSink | None = None
        """Takes the host's events between `open` and `aclose`; `None` for a host without audit."""
        self.keep_in(audit, options)
        self._log: AuditLog | None = None
        self._release: Callable[[], None] | None = None

    def keep_in(self, audit: str | os.PathLike[str] | AuditLog | AuditSink | None, options: AuditOptions) -> None:
        """Sets where events go from the next `open` on."""
        self._audit = audit
        self._options = options

    def open(self, stop: Callable[[AuditError], None]) -> None:
        """Begins. `stop` is called on the running loop when the policy of the log says that plugins must stop.

        Raises:
            AuditError: the log cannot be opened.
        """
        audit = self._audit
        if audit is None or callable(audit):
            self.sink = audit
            return
        log = self._log = audit if isinstance(audit, AuditLog) else AuditLog.open(audit, **self._options)
        self.sink = log.record
        if log.when_full == "stop-plugins":
            loop = asyncio.get_running_loop()
            self._release = log.watch(lambda error: loop.call_soon_threadsafe(partial(stop, _stopped(log, error))))

    async def aclose(self) -> None:
        """Ends; closes the log that `open` opened.

        Raises:
            AuditError: events were lost.
        """
        self.sink = None
        log, self._log = self._log, None
        if self._release is not None:
            self._release()
            self._release = None
        if log is not None and log is not self._audit:
            await log.aclose()

    def must_take(self, plugin: str) -> None:
        """Raises `PluginStateError` if no plugin may start, because the log takes no events."""
        log = self._log
        if log is not None and log.when_full == "stop-plugins" and (error := log.failure) is not None:
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


def _stopped(log: AuditLog, error: OSError) -> AuditError:
    failure = AuditError(log.path, f"takes no events: {error}")
    failure.__cause__ = error
    return failure
