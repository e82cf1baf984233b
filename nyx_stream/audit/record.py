"""One record as one line of JSON: encoding, decoding and the JSON Schema.

A line is `{"v":1,"seq":N,` + the members of the event + `,"hash":"…"}`; `chain.py` adds the parts around the members.
Every text is escaped twice: `text.escape` removes characters that could forge or hide output, so that the *decoded*
text is safe to print, and JSON escapes the rest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from nyx_stream.audit.event import AuditEvent, Kind, Layer
from nyx_stream.audit.redaction import redact_url, redact_urls
from nyx_stream.text import escape

VERSION = 1
"""Version of the schema of a line."""

NAMES = tuple(field.name for field in fields(AuditEvent))
STRUCTURE = ("segment", "seal")
"""Kinds of the records that open and close a segment; they carry no event."""

_EVENT_MEMBERS = {*NAMES, "v", "seq", "hash"}

_BEFORE = ("kind", "plugin", "capability", "action")
_AFTER = ("allowed", "rule", "reason", "layer")
"""The members around the target. The same few groups of values repeat from line to line, so they're cached."""

_CACHED_GROUPS = 1024
_CACHED_TEXT = 256
"""Characters of the longest text that is cached."""

_quote = json.JSONEncoder(ensure_ascii=False).encode


class Encoder:
    """Encodes events as members of a record and caches groups of members that repeat. For one thread."""

    __slots__ = ("_cache", "_keep_queries")

    def __init__(self, *, keep_queries: bool = False) -> None:
        self._keep_queries = keep_queries
        self._cache: dict[tuple[object, ...], str] = {}

    def members(self, event: AuditEvent) -> bytes:
        """Returns the members of an event, without braces. Never raises, even for values of the wrong type."""
        try:
            return self._members(event)
        except Exception as error:  # values of the wrong type: a record says that the event could not be encoded
            return self._members(notice("encode", "1 event", f"it could not be written: {type(error).__name__}"))

    def _members(self, event: AuditEvent) -> bytes:
        cache = self._cache
        before = (event.kind, event.plugin, event.capability, event.action)
        after = (bool(event.allowed), event.rule, event.reason, event.layer)
        time = event.time if -1e12 < event.time < 1e12 else 0.0  # JSON has neither NaN nor infinity
        target = event.target
        if not self._keep_queries:
            target = redact_url(target) if event.capability == "http" else redact_urls(target)
        return (
            f'"time":{time:.6f},{cache.get(before) or self._group(_BEFORE, before)}'
            f',"target":{_quote(escape(target))}'
            f",{cache.get(after) or self._group(_AFTER, after)}"
        ).encode()

    def _group(self, names: tuple[str, ...], values: tuple[str | bool | None, ...]) -> str:
        encoded = ",".join(f'"{name}":{self._value(value)}' for name, value in zip(names, values, strict=True))
        if all(len(value) <= _CACHED_TEXT for value in values if isinstance(value, str)):
            if len(self._cache) >= _CACHED_GROUPS:
                self._cache.clear()
            self._cache[values] = encoded
        return encoded

    def _value(self, value: str | bool | None) -> str:
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return _quote(escape(value if self._keep_queries else redact_urls(value)))


def notice(action: str, target: str, reason: str, time: float = 0.0) -> AuditEvent:
    """Returns an event in which the log reports about itself: something was lost, repaired or refused."""
    return AuditEvent(time, None, "audit", action, target, False, None, reason, "log", "log")


def structure(kind: str, reason: str, time: float, **values: int | str | None) -> bytes:
    """Returns the members of a record that opens or closes a segment: those of an event, and `values`."""
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
    """One decoded line: its number in the chain, the `Kind` of its event or one of `STRUCTURE`, and all members."""

    seq: int
    kind: str
    values: Mapping[str, Any]

    @property
    def event(self) -> AuditEvent | None:
        """The event, or `None` for a record that opens or closes a segment."""
        if self.kind in STRUCTURE:
            return None
        return AuditEvent(**{name: self.values[name] for name in NAMES})


def from_line(line: bytes) -> Record:
    """Decodes one line. Checks its shape, but not its hash.

    Raises:
        ValueError: the line isn't a record of this version.
    """
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("not an audit event") from None
    if not isinstance(row, dict) or "v" not in row:
        raise ValueError("not an audit event")
    if row["v"] != VERSION:
        raise ValueError(f"an audit record of version {row['v']!r}; this reads version {VERSION}")
    kind, seq = row.get("kind"), row.get("seq")
    if not (isinstance(kind, str) and isinstance(seq, int) and isinstance(row.get("hash"), str)):
        raise ValueError("not an audit event")
    if row.keys() != _EVENT_MEMBERS and not (kind in STRUCTURE and row.keys() > _EVENT_MEMBERS):
        raise ValueError("not an audit event")
    return Record(seq, kind, row)


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 1}


def audit_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of one line, for programs in other languages."""
    event = _schema_of("What happened.", get_args(Kind))
    segment = _schema_of(
        "Opens a file: its number, the hash of the last record of the previous file, and the name of the key.",
        ("segment",),
        number=_COUNT,
        previous=_HASH,
        key={"type": ["string", "null"], "pattern": "^[0-9a-f]{16}$"},
    )
    seal = _schema_of(
        "Closes a file, or what one writer added to it: how many lines the file has up to here.",
        ("seal",),
        number=_COUNT,
        records=_COUNT,
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Nyx audit record",
        "oneOf": [event, segment, seal],
    }


def _schema_of(description: str, kinds: Sequence[str], **extra: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "v": {"const": VERSION},
        "seq": _COUNT,
        "time": {"type": "number"},
        "kind": {"enum": list(kinds)},
        "plugin": _TEXT_OR_NULL,
        "capability": _TEXT,
        "action": _TEXT,
        "target": _TEXT,
        "allowed": {"type": "boolean"},
        "rule": _TEXT_OR_NULL,
        "reason": _TEXT,
        "layer": {"enum": list(get_args(Layer))},
        **extra,
        "hash": _HASH,
    }
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
