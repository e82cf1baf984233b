"""Which events a reader wants to see. Pure."""

from dataclasses import dataclass

from nyx_stream.audit.event import AuditEvent


@dataclass(frozen=True, slots=True)
class Selection:
    """Every condition that is not `None` must hold. `since` is included, `until` is not; both are epoch seconds."""

    plugin: str | None = None
    capability: str | None = None
    allowed: bool | None = None
    since: float | None = None
    until: float | None = None

    def fits(self, event: AuditEvent) -> bool:
        """Whether the event is wanted."""
        return (
            (self.plugin is None or event.plugin == self.plugin)
            and (self.capability is None or event.capability == self.capability)
            and (self.allowed is None or event.allowed == self.allowed)
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
        )
