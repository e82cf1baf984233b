"""Events made safe to show: escaped, and without the secrets that URLs carry.

Query strings, fragments and user names with passwords are replaced by `…`: they're where tokens and signatures are.
"""

import re
from dataclasses import replace

from nyx_stream.audit.event import AuditEvent
from nyx_stream.text import MAX_LENGTH, escape

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#]*)([?#])\S+", re.IGNORECASE)


def redact_url(text: str) -> str:
    """Returns a URL, or what a plugin passed as one, without its query, fragment and user."""
    # Unrolled: every record of a request passes through here.
    if 0 <= (start := text.find("?")) < len(text) - 1:
        text = f"{text[: start + 1]}…"
    if 0 <= (start := text.find("#")) < len(text) - 1:
        text = f"{text[: start + 1]}…"
    return _without_user(text)


def redact_urls(text: str) -> str:
    """Returns any other text with each URL in it redacted. A file named `a?b` keeps its name."""
    if "://" not in text:
        return text
    return _without_user(_QUERY.sub(r"\1\2…", text[: 2 * MAX_LENGTH]))


def _without_user(text: str) -> str:
    return _USER.sub("…@", text[: 2 * MAX_LENGTH]) if "@" in text else text


def printable(event: AuditEvent, *, keep_queries: bool = False) -> AuditEvent:
    """Returns the event with every text escaped and redacted, as a record of the log has it.

    `keep_queries` leaves URLs unredacted. The log does the same in `record.Encoder`, which is faster because it makes
    no second event.
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


def summary(event: AuditEvent) -> str:
    """Returns a printable event as one line: plugin, action, target, verdict, reason, layer and rule."""
    plugin, rule = event.plugin or "-", "-" if event.rule is None else event.rule
    verdict = "allowed" if event.allowed else "denied"
    what = f"{event.capability} {event.action} {event.target}"
    return f"{plugin} {what} {verdict}: {event.reason} [{event.layer}, rule {rule}]"
