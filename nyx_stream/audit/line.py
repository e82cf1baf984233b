"""One event as one line of JSON, and back. Knows nothing of threads or descriptors.

Every text of a line is escaped twice over: `text.escape` takes the characters that could forge or hide
output, so that the *decoded* text is safe to print, and JSON takes the rest.
"""

import json
from collections.abc import Iterator
from dataclasses import fields
from os import PathLike

from nyx_stream.audit.event import AuditEvent
from nyx_stream.text import escape

NAMES = tuple(field.name for field in fields(AuditEvent))
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=str, separators=(",", ":")).encode


def to_line(event: AuditEvent) -> bytes:
    """Returns the line of `event`, with its newline. Never raises for any text in the event."""
    values = (getattr(event, name) for name in NAMES)
    row = {name: escape(value) if isinstance(value, str) else value for name, value in zip(NAMES, values, strict=True)}
    row["time"] = round(event.time, 6)
    return f"{_encode(row)}\n".encode()


def from_line(line: bytes) -> AuditEvent:
    """Reads one line back.

    Raises:
        ValueError: the line is not an event.
    """
    row = json.loads(line)
    if not isinstance(row, dict) or set(row) != set(NAMES):
        raise ValueError("not an audit event")
    return AuditEvent(**row)


def read_log(path: str | PathLike[str]) -> Iterator[AuditEvent]:
    """Yields the events of a log file, oldest first; a killed writer's unfinished last line is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: a whole line is not an event; the message names its number.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield from_line(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
