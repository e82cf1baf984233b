"""One decision, or one action of the host, as a value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Layer: TypeAlias = Literal["guard", "kernel", "tripwire", "host", "log"]
"""What decided: the Python guard, the operating system, the audit-hook tripwire, the host, or the audit log."""

Kind: TypeAlias = Literal["decision", "lifecycle", "policy", "revocation", "approval", "report", "log"]
"""What an event describes.

- `decision`: a plugin tried something;
- `lifecycle`: a plugin was loaded, unloaded or failed;
- `policy`: a policy changed;
- `revocation`: a capability was revoked;
- `approval`: the approver answered a request;
- `report`: the restrictions that the operating system applied to a worker;
- `log`: the audit log reports about itself.
"""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision, or one action of the host, that concerns a plugin.

    Attributes:
        time: seconds since the epoch.
        plugin: id of the plugin, or `None` for a guard that is used without a plugin.
        capability: `"connect"`, `"http"`, `"files"`, `"plugin"`, …
        action: what was tried: `"GET"`, `"read"`, `"load"`, …
        target: what it was tried on, as the plugin gave it. Untrusted text: a sink that prints it must escape
            it. `AuditLog` escapes it and removes query strings.
        allowed: whether it was done.
        rule: text of the rule that decided, or `None` if no rule matched.
        reason: why, in words.
        layer: what decided.
        kind: what the event describes.
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
"""Takes one event. It's called on the event loop and from any thread, so it must not block or raise."""
