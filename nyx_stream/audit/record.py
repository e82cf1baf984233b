"""One record as one line of JSON, and back. Knows nothing of threads or descriptors.

A line is `{"v":1,"seq":N,` + the members of what happened + `,"hash":"…"}`; `chain.py` adds what stands around the
members. Every text is escaped twice over: `text.escape` takes the characters that could forge or hide output, so that
the *decoded* text is safe to print, and JSON takes the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.redaction import redact_url, redact_urls
from nyx_stream.text import escape

VERSION = 1
"""Of the schema of a line (`schema.py`)."""

NAMES = tuple(field.name for field in fields(AuditEvent))
STRUCTURE = ("segment", "seal")
"""Kinds of the records that hold the log together and tell of no event."""

_EVENT_MEMBERS = {*NAMES, "v", "seq", "hash"}

_BEFORE = ("kind", "plugin", "capability", "action")
_AFTER = ("allowed", "rule", "reason", "layer")
"""The members around the target: the same few groups of them come in line after line."""

_KNOWN = 1024
"""Groups that are remembered as they were encoded."""
_SHORT = 256

_quote = json.JSONEncoder(ensure_ascii=False).encode


class Encoder:
    """Turns events into members. Remembers the groups of members that repeat. For one thread."""

    __slots__ = ("_keep_queries", "_known")

    def __init__(self, *, keep_queries: bool = False) -> None:
        self._keep_queries = keep_queries
        self._known: dict[tuple[object, ...], str] = {}

    def members(self, event: AuditEvent) -> bytes:
        """Returns the members of an event, without braces. Never raises, whatever stands in the event."""
        try:
            return self._members(event)
        except Exception as error:  # a sink never raises: what breaks its types is recorded as that
            return self._members(notice("encode", "1 event", f"it could not be written: {type(error).__name__}"))

    def _members(self, event: AuditEvent) -> bytes:
        known = self._known
        before = (event.kind, event.plugin, event.capability, event.action)
        after = (bool(event.allowed), event.rule, event.reason, event.layer)
        moment = event.time if -1e12 < event.time < 1e12 else 0.0  # JSON has neither NaN nor infinity
        return (
            f'"time":{moment:.6f},{known.get(before) or self._group(_BEFORE, before)}'
            f',"target":{self._target(event.capability, event.target)}'
            f",{known.get(after) or self._group(_AFTER, after)}"
        ).encode()

    def _target(self, capability: str, target: str) -> str:
        if not self._keep_queries:
            target = redact_url(target) if capability == "http" else redact_urls(target)
        return _quote(escape(target))

    def _group(self, names: tuple[str, ...], values: tuple[str | bool | None, ...]) -> str:
        encoded = ",".join(f'"{name}":{self._value(value)}' for name, value in zip(names, values, strict=True))
        if all(len(value) <= _SHORT for value in values if isinstance(value, str)):
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[values] = encoded
        return encoded

    def _value(self, value: str | bool | None) -> str:
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return _quote(escape(value if self._keep_queries else redact_urls(value)))


def notice(action: str, target: str, reason: str, time: float = 0.0) -> AuditEvent:
    """Returns what a log has to say about itself: something was lost, repaired or refused."""
    return AuditEvent(time, None, "audit", action, target, False, None, reason, "log", "log")


def structure(kind: str, reason: str, time: float, **values: int | str | None) -> bytes:
    """Returns the members of a record that holds the log together: those of an event, and its own."""
    members = {
        "kind": kind,
        "plugin": None,
        "capability": "audit",
        "action": kind,
        "target": f"segment {values['number']}",
        "allowed": True,
        "rule": None,
        "reason": reason,
        "layer": "log",
    }
    return f'"time":{time:.6f},{json.dumps(members | values, separators=(",", ":"))[1:-1]}'.encode()


@dataclass(frozen=True, slots=True)
class Record:
    """One line, read.

    Attributes:
        seq: its number in the chain, from 1.
        kind: the `Kind` of its event, `"segment"` or `"seal"`.
        hash: 64 hexadecimal digits, over this record and the hash of the one before.
        values: all members by name.
    """

    seq: int
    kind: str
    hash: str
    values: Mapping[str, Any]

    @property
    def event(self) -> AuditEvent | None:
        """The event; `None` for a record that tells of none."""
        if self.kind in STRUCTURE:
            return None
        return AuditEvent(**{name: self.values[name] for name in NAMES})


def from_line(line: bytes) -> Record:
    """Reads one line. Looks at its shape, not at its hash.

    Raises:
        ValueError: the line is no record of this version.
    """
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("not an audit event") from None
    if not isinstance(row, dict) or "v" not in row:
        raise ValueError("not an audit event")
    if row["v"] != VERSION:
        raise ValueError(f"an audit record of version {row['v']!r}; this reads version {VERSION}")
    kind, seq, stated = row.get("kind"), row.get("seq"), row.get("hash")
    if not (isinstance(kind, str) and isinstance(seq, int) and isinstance(stated, str)):
        raise ValueError("not an audit event")
    if row.keys() != _EVENT_MEMBERS and not (kind in STRUCTURE and row.keys() > _EVENT_MEMBERS):
        raise ValueError("not an audit event")
    return Record(seq, kind, stated, row)
