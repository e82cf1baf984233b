"""Sinks other than the log file: several sinks as one, and a sink for the `logging` module."""

import inspect
import logging
import threading
from dataclasses import fields

from nyx_stream.audit.event import AuditEvent, AuditSink
from nyx_stream.audit.redaction import printable, summary
from nyx_stream.text import escape

_log = logging.getLogger("nyx.audit")

_NAMES = tuple(field.name for field in fields(AuditEvent))


class LoggingSink:
    """An `AuditSink` that logs each event: allowed ones at `INFO`, denied ones at `WARNING`.

    The message is one line. The fields of the event are attributes of the log record, `nyx_plugin`, `nyx_capability`,
    `nyx_target` and so on, for formatters that write structured logs. All texts are escaped.

    Args:
        logger: receives the records; by default the logger `nyx.audit`.
        keep_queries: whether URLs keep query string, fragment and user, instead of `…`.
    """

    __slots__ = ("_keep_queries", "_logger")

    def __init__(self, logger: logging.Logger | None = None, *, keep_queries: bool = False) -> None:
        self._logger = logger if logger is not None else _log
        self._keep_queries = keep_queries

    def __call__(self, event: AuditEvent) -> None:
        """Logs one event. Cheap where the logger's level leaves it out."""
        level = logging.INFO if event.allowed else logging.WARNING
        if not self._logger.isEnabledFor(level):
            return
        safe = printable(event, keep_queries=self._keep_queries)
        self._logger.log(level, "%s", summary(safe), extra={f"nyx_{name}": getattr(safe, name) for name in _NAMES})


class IsolatedSink:
    """Wraps a sink that may fail and never raises itself. Failures are counted; the first one is logged.

    Args:
        sink: called with each event, on the thread and in the task that caused it. It isn't awaited.

    Raises:
        TypeError: `sink` is a coroutine function.
    """

    __slots__ = ("_lock", "_sink", "failed", "name")

    def __init__(self, sink: AuditSink) -> None:
        kind = type(sink)
        self.name = escape(str(getattr(sink, "__qualname__", f"{kind.__module__}.{kind.__qualname__}")), 100)
        """The sink's name in messages."""
        self.failed = 0
        """Events that the sink failed to take."""
        self._sink = sink
        self._lock = threading.Lock()
        if inspect.iscoroutinefunction(sink) or inspect.iscoroutinefunction(getattr(sink, "__call__", None)):  # noqa: B004  # whether it is a coroutine function, not whether it is there
            raise TypeError(
                f"{self.name} is a coroutine function, but a sink is called without await: "
                "put the event into a queue and read it from a task"
            )

    def __call__(self, event: AuditEvent) -> None:
        """Passes an event to the sink."""
        try:
            result: object = self._sink(event)
        except Exception as error:
            self._count_failure(f"{type(error).__name__}: {error}")
            return
        if result is not None and inspect.iscoroutine(result):
            result.close()
            self._count_failure("it returned a coroutine, which is never awaited")

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self.failed += 1
            first = self.failed == 1
        if first:
            _log.error(
                "audit sink %s failed to take an event: %s; it's still called, and further failures are only counted",
                self.name,
                escape(reason),
            )


def fan_out(*sinks: AuditSink) -> AuditSink:
    """Returns one sink that calls all of them in order. An error of one reaches neither the caller nor the others.

    Raises:
        TypeError: one of them is a coroutine function.
    """
    return combine(tuple(sink if isinstance(sink, IsolatedSink) else IsolatedSink(sink) for sink in sinks))


def combine(sinks: tuple[AuditSink, ...]) -> AuditSink:
    """Returns one sink that calls all of `sinks`, none of which may raise."""
    if len(sinks) == 1:
        return sinks[0]

    def call_each(event: AuditEvent) -> None:
        for sink in sinks:
            sink(event)

    return call_each
