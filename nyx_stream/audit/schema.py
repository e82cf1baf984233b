"""JSON Schema of a line of the log, for programs that read it in another language. Pure."""

from collections.abc import Sequence
from typing import Any, get_args

from nyx_stream.audit.event import Kind, Layer
from nyx_stream.audit.record import VERSION

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 1}


def audit_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of one line."""
    event = _record("What happened.", get_args(Kind))
    segment = _record(
        "Opens a file: its number, the hash of the last record of the file before, and the name of the key.",
        ("segment",),
        number=_COUNT,
        previous=_HASH,
        key={"type": ["string", "null"], "pattern": "^[0-9a-f]{16}$"},
    )
    seal = _record(
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


def _record(description: str, kinds: Sequence[str], **own: dict[str, Any]) -> dict[str, Any]:
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
        **own,
        "hash": _HASH,
    }
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
