"""Sample events and logs."""

from dataclasses import dataclass
from pathlib import Path

from nyx_stream.audit import AuditEvent, AuditLog

KEY = b"a key of more than 16 bytes"


def event(number: int, target: str | None = None) -> AuditEvent:
    """Returns an event whose time is `number`."""
    return AuditEvent(float(number), "p", "files", "read", target or f"/d/{number}", True, "/d", "allowed", "guard")


@dataclass(frozen=True)
class SampleLog:
    """A closed log and its key."""

    path: Path
    key: bytes

    @property
    def files(self) -> list[Path]:
        """Every segment in order; the last one is the file that was written to."""
        return [*sorted(self.path.parent.glob(f"{self.path.name}.[0-9]*")), self.path]


def write_log(path: Path, key: bytes = b"") -> SampleLog:
    """Writes a log of 40 events in several segments."""
    log = AuditLog.open(path, key=key, segment_bytes=4096)
    for number in range(40):
        log.record(event(number))
        log.flush()
    log.close()
    return SampleLog(path, key)
