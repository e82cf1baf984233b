"""Logging of the command line: `NYX_LOG=debug` shows how a sandbox was applied, and the reason of each decision.

The packages log to children of the logger `nyx` and configure nothing: that's up to an application that embeds Nyx.
"""

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from nyx_stream.audit import AuditEvent, AuditLog, AuditSink, fan_out
from nyx_stream.audit.redaction import printable, redact_urls, summary
from nyx_stream.cli.plan import layer_of_limit, layer_of_rule
from nyx_stream.isolation.backend import Level
from nyx_stream.policy.grant import Grant
from nyx_stream.text import escape

VARIABLE = "NYX_LOG"
_LEVELS = ("debug", "info", "warning", "error")
_sandbox = logging.getLogger("nyx.sandbox")
_decisions = logging.getLogger("nyx.decisions")


class _RedactingFormatter(logging.Formatter):
    """Redacts URLs in messages and tracebacks as the audit log does."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as text."""
        return redact_lines(super().format(record))


def redact_lines(text: str) -> str:
    """Returns lines of text without query, fragment and user of every URL."""
    return "\n".join(redact_urls(line) for line in text.split("\n"))


@contextmanager
def logged_to_stderr() -> Iterator[str | None]:
    """Sends the logger `nyx` to stderr at the level of `NYX_LOG` (default: warning), and restores it afterwards.

    Yields an error message if the variable has a wrong value, or `None`.
    """
    level = os.environ.get(VARIABLE, "warning").lower()
    if level not in _LEVELS:
        yield f"{VARIABLE} must be one of {', '.join(_LEVELS)}, not {escape(level, 40)!r}"
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
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
    """Logs, at `debug`, what a plugin was granted and which layer enforces it."""
    if not _sandbox.isEnabledFor(logging.DEBUG):
        return
    plugin = grant.manifest.id
    _sandbox.debug("%s at level %s, folders: %s", plugin, level, dict(grant.places))
    for row in grant.rows():
        by = ", ".join(f"{rule.text} ({rule.source})" for rule in row.by) or "-"
        layer = layer_of_rule(row.kind, level)
        asked = escape(row.asked)
        _sandbox.debug("%s %s %s: %s, by %s, enforced by %s", plugin, row.kind, asked, row.status, by, layer)
    for name, value in grant.limits.printed().items():
        _sandbox.debug("%s limit %s: %s, enforced by %s", plugin, name, value, layer_of_limit(name, level))


def log_decision(event: AuditEvent) -> None:
    """An audit sink that logs each decision: allowed ones at `debug`, denied ones at `info`."""
    level = logging.DEBUG if event.allowed else logging.INFO
    if _decisions.isEnabledFor(level):
        _decisions.log(level, "%s", summary(printable(event)))


@asynccontextmanager
async def audit_sink(path: str | None) -> AsyncIterator[AuditSink]:
    """Yields a sink that logs each decision and, if `path` is given, appends it to the audit log there.

    Raises `AuditError`, also at the end if an event was lost.
    """
    if path is None:
        yield log_decision
        return
    async with AuditLog.open(path) as log:
        yield fan_out(log.record, log_decision)
