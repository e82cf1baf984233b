"""The record of every decision: what an event is, a log that keeps it, and the proof that the log is what was written.

Guard, capabilities, isolation and host write to it; it imports none of them.
"""

from nyx_stream.audit.event import AuditEvent, AuditSink
from nyx_stream.audit.fan_out import fan_out
from nyx_stream.audit.log import AuditLog
from nyx_stream.audit.reading import read_log
from nyx_stream.audit.to_logging import LoggingSink
from nyx_stream.audit.verification import Fault, Verification, verify

__all__ = [
    "AuditEvent",
    "AuditLog",
    "AuditSink",
    "Fault",
    "LoggingSink",
    "Verification",
    "fan_out",
    "read_log",
    "verify",
]
