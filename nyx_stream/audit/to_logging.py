"""A sink that hands events to the standard library's logging. Knows no handler and no formatter."""

import logging
from dataclasses import fields

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.printable import printable, sentence

LOGGER = "nyx.audit"

PREFIX = "nyx_"
"""Before the name of each member of an event, as an attribute of its log record: `nyx_plugin`, `nyx_rule`, …"""

_NAMES = tuple(field.name for field in fields(AuditEvent))


class LoggingSink:
    """An `AuditSink` that makes each event a log record: allowed ones at `INFO`, denied ones at `WARNING`.

    The message is one line. The members of the event are attributes of the record, `nyx_plugin`, `nyx_capability`,
    `nyx_target` and so on, for formatters that write structured logs. All of them are escaped.

    Args:
        logger: where the records go; by default the logger `nyx.audit`.
        keep_queries: whether URLs keep query string, fragment and user, instead of `…`.
    """

    __slots__ = ("_keep_queries", "_logger")

    def __init__(self, logger: logging.Logger | None = None, *, keep_queries: bool = False) -> None:
        self._logger = logger if logger is not None else logging.getLogger(LOGGER)
        self._keep_queries = keep_queries

    def __call__(self, event: AuditEvent) -> None:
        """Logs one event. Costs little where the logger's level leaves it out."""
        level = logging.INFO if event.allowed else logging.WARNING
        if not self._logger.isEnabledFor(level):
            return
        safe = printable(event, keep_queries=self._keep_queries)
        members = {f"{PREFIX}{name}": getattr(safe, name) for name in _NAMES}
        self._logger.log(level, "%s", sentence(safe), extra=members)
