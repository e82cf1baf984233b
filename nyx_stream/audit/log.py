"""A log of events in a file of JSON lines, written by a thread of its own.

An event is *acknowledged* when `flush` has returned after it was recorded, or `close` has: then it survives `kill -9`
of this process, and at `fsync="each"` a power cut too. Imports nothing of Nyx but this room and the error tree.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypedDict

from nyx_stream.audit.chain import KEY_SIZES
from nyx_stream.audit.event_queue import EventQueue
from nyx_stream.audit.file import LogFile
from nyx_stream.audit.record import Encoder
from nyx_stream.audit.writer import Writer
from nyx_stream.errors import AuditError

if TYPE_CHECKING:
    from nyx_stream.audit.event import AuditSink

Fsync: TypeAlias = Literal["each", "interval", "never"]
"""When the disk is asked to confirm. A killed process loses nothing acknowledged at any of them; a power cut loses

- `"each"`: nothing that was acknowledged; every batch is synced before the next is written;
- `"interval"`: at most the last `sync_interval` seconds;
- `"never"`: what the operating system had not written yet, commonly up to 30 seconds. `close` still syncs.
"""

WhenFull: TypeAlias = Literal["block", "stop-plugins", "drop-and-count"]
"""What happens when the file cannot take an event: a full disk, a quota, a directory gone read-only.

Always: the error goes to the logger `nyx.audit` and to `on_failure` at once, events wait in memory up to `capacity`,
the write is tried again four times a second, and `close` raises `AuditError` if one was lost. And then

- `"drop-and-count"`: what comes when the memory is full is dropped and counted; the file tells how many, once it can;
- `"block"`: nothing is dropped: whoever records when the memory is full waits. On an event loop that is the whole host:
  it stands still rather than act unrecorded; until the log is closed, from another thread, or the process killed;
- `"stop-plugins"`: the host fails its plugins with the first error and starts none until the file takes records again.

A segment that cannot be sealed and renamed grows on, and no event waits for that: it is told like any failure, in the
log too, and `"stop-plugins"` stops plugins then as well.
"""

CAPACITY = 65_536
"""Events that wait in memory while the file cannot take them; about 30 MB."""

SEGMENT_BYTES = 64 << 20
SMALLEST_SEGMENT = 4096


class AuditOptions(TypedDict, total=False):
    """The options of `AuditLog.open` that a configuration can hold."""

    fsync: Fsync
    sync_interval: float
    segment_bytes: int
    when_full: WhenFull
    key: bytes
    keep_queries: bool
    capacity: int


class AuditLog:
    """An `AuditSink` (its `record`) over a file. Use `async with AuditLog.open(path) as log`."""

    def __init__(self, path: str, file: LogFile, waiting: EventQueue, writer: Writer, when_full: WhenFull) -> None:
        self.path = path
        self.when_full: WhenFull = when_full
        self.record: AuditSink = waiting.put  # not a method of its own: every decision of every plugin comes by here
        """Takes one event, from any thread. Never raises, and never blocks unless `when_full` is `"block"`."""
        self._file = file
        self._waiting = waiting
        self._writer = writer
        self._told = 0  # of the lost events, how many a `flush` has raised for
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        fsync: Fsync = "interval",
        sync_interval: float = 1.0,
        segment_bytes: int = SEGMENT_BYTES,
        when_full: WhenFull = "drop-and-count",
        key: bytes = b"",
        keep_queries: bool = False,
        capacity: int = CAPACITY,
        on_failure: Callable[[OSError], object] | None = None,
    ) -> "AuditLog":
        """Opens or creates the log at `path` and starts its thread.

        Args:
            path: a regular file; created with mode 0600. Several logs may share it, if their options are the same.
            fsync: when the disk confirms; see `Fsync`.
            sync_interval: seconds, for `fsync="interval"`.
            segment_bytes: a file that has grown to this size is sealed and renamed to `PATH.000001` and so on.
            when_full: what happens when the file cannot take an event; see `WhenFull`.
            key: 16 to 64 secret bytes that the hashes are keyed with; without one, whoever can write the file can
                compute a chain of their own.
            keep_queries: whether targets keep query string, fragment and user of a URL, instead of `…`.
            capacity: events kept in memory while the file cannot take them.
            on_failure: is told the first error of every row of errors, on the log's thread.

        Raises:
            AuditError: the file cannot be opened for appending, or is no log of that key. The cause is chained.
            ValueError: an option is out of its range.
        """
        if key and len(key) not in KEY_SIZES:
            raise ValueError(f"an audit key has {KEY_SIZES.start} to {KEY_SIZES.stop - 1} bytes, not {len(key)}")
        if segment_bytes < SMALLEST_SEGMENT or capacity < 1 or not 0 < sync_interval < threading.TIMEOUT_MAX:
            raise ValueError(f"a segment has {SMALLEST_SEGMENT} bytes or more, capacity and interval more than none")
        name = os.fspath(path)
        file = LogFile(os.path.realpath(name), key, segment_bytes, durable=fsync == "each")
        try:
            file.open()
        except OSError as error:
            file.close()
            raise AuditError(name, f"cannot be opened: {error}") from error
        waiting = EventQueue(name, capacity, block=when_full == "block")
        encode = Encoder(keep_queries=keep_queries).members
        writer = Writer(name, waiting, file, encode, sync_interval if fsync == "interval" else None)
        if on_failure is not None:
            writer.watch(on_failure)
        writer.start()
        return cls(name, file, waiting, writer, when_full)

    @property
    def failure(self) -> OSError | None:
        """The error that the file gives at present; `None` while it takes lines."""
        return self._writer.failure

    @property
    def lost(self) -> int:
        """Events that were dropped since the log was opened."""
        return self._waiting.lost

    @property
    def head(self) -> str:
        """The hash of the last record that this log wrote: published elsewhere, it proves all up to there."""
        return self._file.position.head.hex()

    def flush(self, timeout: float | None = None) -> None:
        """Returns when every event that this thread recorded before is acknowledged. Blocks.

        Raises:
            AuditError: the file does not take them at present, or not within `timeout` seconds, and they still wait;
                or events were dropped since the last `flush`; or the log is closed.
        """
        asked = self._waiting.ask()
        if not self._writer.running:
            raise AuditError(self.path, "is closed")
        if not asked.wait(timeout):
            raise AuditError(self.path, f"did not confirm within {timeout} seconds")
        if asked.error is not None:
            raise AuditError(self.path, f"not confirmed: {asked.error}") from asked.error
        lost, self._told = self.lost - self._told, self.lost
        if lost:
            raise AuditError(self.path, f"{lost} events were lost", lost)

    async def aflush(self, timeout: float | None = None) -> None:
        """`flush`, without blocking the event loop."""
        await asyncio.to_thread(self.flush, timeout)

    def watch(self, on_failure: Callable[[OSError], object]) -> Callable[[], None]:
        """Has `on_failure` told the first error of every row of errors, on the log's thread.

        Returns what ends that.
        """
        return self._writer.watch(on_failure)

    def close(self) -> None:
        """Writes what waits, seals and syncs the file and ends the thread. Blocks; a second call does nothing.

        Raises:
            AuditError: events were lost, or the disk did not confirm them.
        """
        if self._closed:
            return
        self._closed = True
        self._waiting.close()
        self._writer.stop()
        failure = self.failure
        try:
            self._file.seal()
            self._file.sync()
        except OSError as error:
            failure = error
        finally:
            self._file.close()
        if self.lost:
            why = f": {failure}" if failure is not None else ""
            raise AuditError(self.path, f"{self.lost} events were lost{why}", self.lost) from failure
        if failure is not None:
            raise AuditError(self.path, f"not confirmed by the disk: {failure}") from failure

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
