"""The audit log: events, a log file that keeps them in a hash chain, and the verification of that file."""

from typing import TYPE_CHECKING, Any

from nyx_stream.audit.event import AuditEvent, AuditSink

if TYPE_CHECKING:
    from nyx_stream.audit.log import AuditLog, Fsync, WhenFull
    from nyx_stream.audit.reader import read_log
    from nyx_stream.audit.sinks import LoggingSink, fan_out
    from nyx_stream.audit.verifier import Fault, Verification, verify

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

_MODULES = {
    "AuditLog": "log",
    "Fault": "verifier",
    "Fsync": "log",
    "LoggingSink": "sinks",
    "Verification": "verifier",
    "WhenFull": "log",
    "fan_out": "sinks",
    "read_log": "reader",
    "verify": "verifier",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: a guard only makes events, and a worker should not load asyncio and the log for that.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
