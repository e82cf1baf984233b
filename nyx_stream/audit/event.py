"""One decision as a value. Knows nothing of how it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Layer: TypeAlias = Literal["guard", "kernel", "tripwire", "host", "log"]
"""Who decided: the Python guard, the operating system, the audit-hook tripwire, the host itself, or the audit log."""

Kind: TypeAlias = Literal["decision", "lifecycle", "policy", "revocation", "approval", "report", "log"]
"""What an event tells: a decision on something a plugin did; a plugin loaded, unloaded or failed; a policy changed; a
capability taken back; a question to the approver answered; what the OS layer really applied; the log about itself."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision, or one act of the host, that concerns a plugin.

    Attributes:
        time: seconds since the epoch.
        plugin: id of the plugin, or `None` for a guard that serves no plugin.
        capability: `"connect"`, `"http"`, `"files"`, `"plugin"`, …
        action: what was tried: `"GET"`, `"read"`, `"load"`, …
        target: what it was tried on, as the plugin gave it. Hostile text: a sink that prints it must escape
            it; `AuditLog` does, and takes out query strings.
        allowed: whether it was done.
        rule: text of the rule that decided, or `None` if no rule matched.
        reason: why, in words.
        layer: who decided.
        kind: what the event tells.
    """

    time: float
    plugin: str | None
    capability: str
    action: str
    target: str
    allowed: bool
    rule: str | None
    reason: str
    layer: Layer
    kind: Kind = "decision"


AuditSink: TypeAlias = Callable[[AuditEvent], None]
"""Takes one event. Is called on the event loop and from any thread: it never blocks and never raises."""
