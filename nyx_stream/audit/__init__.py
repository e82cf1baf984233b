"""The record of every decision: what an event is, and a log that keeps it.

Guard, capabilities, isolation and host write to it; it imports none of them.
"""

from nyx_stream.audit.event import AuditEvent, AuditSink
from nyx_stream.audit.line import read_log
from nyx_stream.audit.log import AuditLog

__all__ = ["AuditEvent", "AuditLog", "AuditSink", "read_log"]
