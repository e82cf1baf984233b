"""What events and calls are called in OpenTelemetry: by its semantic conventions where they have a name. Pure.

Everything comes from `printable` events: escaped, without query strings, fragments and users.
"""

import re
from typing import TypeAlias

from nyx_stream.audit import AuditEvent
from nyx_stream.host.observability.call_observer import Call

Attributes: TypeAlias = dict[str, str | bool | int]

_HOST_AND_PORT = re.compile(r"\[?([^\[\]\s]+?)\]?:(\d{1,5})(?: at .*)?")

OTHER = "_OTHER"
"""What the conventions put for a name that is not one of a known few."""


def of_event(event: AuditEvent) -> Attributes:
    """Returns the attributes of a printable event."""
    found: Attributes = {
        "nyx.kind": event.kind,
        "nyx.capability": event.capability,
        "nyx.action": event.action,
        "nyx.target": event.target,
        "nyx.allowed": event.allowed,
        "nyx.reason": event.reason,
        "nyx.layer": event.layer,
    }
    if event.plugin is not None:
        found["nyx.plugin.id"] = event.plugin
    if event.rule is not None:
        found["nyx.rule"] = event.rule
    if event.kind == "decision":
        found |= _of_target(event)
    return found


def of_call(call: Call) -> Attributes:
    """Returns the attributes of a call."""
    return {
        "nyx.plugin.id": call.plugin,
        "nyx.plugin.version": call.version,
        "nyx.isolation": call.isolation,
        "nyx.stream": call.stream,
        "code.function.name": call.method or OTHER,
    }


def _of_target(event: AuditEvent) -> Attributes:
    if event.capability == "http" and "://" in event.target:
        return {"http.request.method": event.action, "url.full": event.target}
    if event.capability == "files":
        return {"file.path": event.target}
    if event.capability == "connect" and (match := _HOST_AND_PORT.fullmatch(event.target)):
        return {"server.address": match[1], "server.port": int(match[2])}
    return {}
