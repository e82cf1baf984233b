"""Events, and logs that were written."""

from dataclasses import dataclass
from pathlib import Path

from nyx_stream.audit import AuditEvent, AuditLog

KEY = b"a key of more than 16 bytes"


def event(number: int, target: str | None = None) -> AuditEvent:
    """The event with that number, which is its time."""
    return AuditEvent(float(number), "p", "files", "read", target or f"/d/{number}", True, "/d", "allowed", "guard")


@dataclass(frozen=True)
class Written:
    """A closed log, and its key."""

    path: Path
    key: bytes

    @property
    def files(self) -> list[Path]:
        """Every segment, in order; the last is the file that was written to."""
        return [*sorted(self.path.parent.glob(f"{self.path.name}.*")), self.path]


def write_log(path: Path, key: bytes = b"") -> Written:
    """Writes a log of 40 events in several segments."""
    log = AuditLog.open(path, key=key, segment_bytes=4096)
    for number in range(40):
        log.record(event(number))
        log.flush()
    log.close()
    return Written(path, key)
