"""An event made safe to show: escaped, and without what a target may carry of secrets. Pure.

The file does the same for its lines (`line.py`), which it writes faster than through a second event.
"""

from dataclasses import replace

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.redaction import redact_url, redact_urls
from nyx_stream.text import escape


def printable(event: AuditEvent, *, keep_queries: bool = False) -> AuditEvent:
    """Returns the event as a record of the log would have it: every text of it can be printed.

    Args:
        event: what happened.
        keep_queries: whether query strings, fragments and users of URLs stay, instead of `…`.
    """

    def safe(text: str) -> str:
        return escape(text if keep_queries else redact_urls(text))

    target = event.target
    if event.capability == "http" and not keep_queries:
        target = redact_url(target)
    return replace(
        event,
        plugin=None if event.plugin is None else safe(event.plugin),
        capability=safe(event.capability),
        action=safe(event.action),
        target=safe(target),
        rule=None if event.rule is None else safe(event.rule),
        reason=safe(event.reason),
    )


def sentence(event: AuditEvent) -> str:
    """Returns a printable event as one line: who tried what on what, what came of it, and why."""
    who, rule = event.plugin or "-", "-" if event.rule is None else event.rule
    verdict = "allowed" if event.allowed else "denied"
    what = f"{event.capability} {event.action} {event.target}"
    return f"{who} {what} {verdict}: {event.reason} [{event.layer}, rule {rule}]"
