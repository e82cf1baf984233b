"""Logging for the command line: `NYX_LOG=debug` shows how a sandbox was applied and why each thing was denied.

The packages log to children of the logger `nyx` and configure nothing; an application that embeds Nyx does as it likes.
"""

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from nyx_stream.audit import AuditEvent, AuditLog, AuditSink, fan_out
from nyx_stream.audit.redaction import printable, redact_urls, summary
from nyx_stream.cli.layers import layer_of_limit, layer_of_rule
from nyx_stream.isolation.backend import Level
from nyx_stream.policy.grant import Grant
from nyx_stream.text import escape

VARIABLE = "NYX_LOG"
_LEVELS = ("debug", "info", "warning", "error")
_sandbox = logging.getLogger("nyx.sandbox")
_decisions = logging.getLogger("nyx.decisions")


class _Redacted(logging.Formatter):
    """Leaves out what the audit log leaves out of URLs: of messages and tracebacks, whoever logged them."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as text."""
        return without_queries(super().format(record))


def without_queries(text: str) -> str:
    """Returns lines of text with query, fragment and user of every URL left out."""
    return "\n".join(redact_urls(line) for line in text.split("\n"))


@contextmanager
def logged_to_stderr() -> Iterator[str | None]:
    """Sends the logger `nyx` to stderr, at the level of `NYX_LOG` (default: warning), and leaves it as it was.

    Gives what is wrong with the variable's value, or `None`.
    """
    level = os.environ.get(VARIABLE, "warning").lower()
    if level not in _LEVELS:
        yield f"{VARIABLE} is one of {', '.join(_LEVELS)}, not {escape(level, 40)!r}"
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacted("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("nyx")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())
    try:
        yield None
    finally:
        logger.handlers, level_before, logger.propagate = before
        logger.setLevel(level_before)


def log_grant(grant: Grant, level: Level) -> None:
    """Writes, at `debug`, what a plugin was granted, and which layer holds it to that."""
    if not _sandbox.isEnabledFor(logging.DEBUG):
        return
    plugin = grant.manifest.id
    _sandbox.debug("%s at level %s, folders: %s", plugin, level, dict(grant.places))
    for row in grant.rows():
        by = ", ".join(f"{rule.text} ({rule.source})" for rule in row.by) or "-"
        layer = layer_of_rule(row.kind, level)
        _sandbox.debug("%s %s %s: %s, by %s, held by %s", plugin, row.kind, escape(row.asked), row.status, by, layer)
    for name, value in grant.limits.printed().items():
        _sandbox.debug("%s limit %s: %s, held by %s", plugin, name, value, layer_of_limit(name, level))


def log_decision(event: AuditEvent) -> None:
    """An audit sink that writes each decision to the log: allowed ones at `debug`, denied ones at `info`."""
    level = logging.DEBUG if event.allowed else logging.INFO
    if _decisions.isEnabledFor(level):
        _decisions.log(level, "%s", summary(printable(event)))


@asynccontextmanager
async def audit_sink(path: str | None) -> AsyncIterator[AuditSink]:
    """Gives a sink that logs each decision, and appends it to the audit log at `path` if there is one.

    Raises `AuditError`, also at the end if an event was lost.
    """
    if path is None:
        yield log_decision
        return
    async with AuditLog.open(path) as log:
        yield fan_out(log.record, log_decision)
