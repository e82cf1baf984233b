"""The record of every decision: what an event is, a log that keeps it, and the proof that the log is what was written.

Guard, capabilities, isolation and host write to it; it imports none of them.
"""

from typing import TYPE_CHECKING, Any

from nyx_stream.audit.event import AuditEvent, AuditSink
from nyx_stream.audit.fan_out import fan_out

if TYPE_CHECKING:
    from nyx_stream.audit.log import AuditLog, Fsync, WhenFull
    from nyx_stream.audit.reading import read_log
    from nyx_stream.audit.to_logging import LoggingSink
    from nyx_stream.audit.verification import Fault, Verification, verify

__all__ = [
    "AuditEvent",
    "AuditLog",
    "AuditSink",
    "Fault",
    "Fsync",
    "LoggingSink",
    "Verification",
    "WhenFull",
    "fan_out",
    "read_log",
    "verify",
]

_HOMES = {
    "AuditLog": "log",
    "Fault": "verification",
    "Fsync": "log",
    "LoggingSink": "to_logging",
    "Verification": "verification",
    "WhenFull": "log",
    "read_log": "reading",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    # A guard makes events and keeps none: it does without the log, and so without asyncio.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
