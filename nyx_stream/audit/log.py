"""A log of events in a file of JSON lines, written by a background thread.

An event is *acknowledged* when `flush` has returned after it was recorded, or `close` has. It then survives `kill -9`
of this process, and with `fsync="each"` a power cut too.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypedDict

from nyx_stream.audit.chain import KEY_SIZES
from nyx_stream.audit.file import LogFile
from nyx_stream.audit.record import Encoder
from nyx_stream.audit.writer import EventQueue, Writer
from nyx_stream.errors import AuditError

if TYPE_CHECKING:
    from nyx_stream.audit.event import AuditSink

Fsync: TypeAlias = Literal["each", "interval", "never"]
"""When the disk must confirm writes. A killed process never loses acknowledged events; a power cut loses

- `"each"`: nothing that was acknowledged, since every batch is synced before the next one is written;
- `"interval"`: at most the last `sync_interval` seconds;
- `"never"`: what the operating system hadn't written yet, commonly up to 30 seconds. `close` still syncs.
"""

WhenFull: TypeAlias = Literal["block", "stop-plugins", "drop-and-count"]
"""What happens when the file can't take an event: a full disk, a quota, a directory that became read-only.

In every case the error goes to the logger `nyx.audit` and to `on_failure` at once, up to `capacity` events are kept in
memory, the write is retried four times a second, and `close` raises `AuditError` if an event was lost. In addition:

- `"drop-and-count"`: events are dropped and counted when the memory is full; a record says how many, once it can be
  written;
- `"block"`: nothing is dropped. Recording waits when the memory is full. On an event loop this stops the whole host,
  until the log is closed from another thread or the process is killed;
- `"stop-plugins"`: the host fails its plugins at the first error and starts none until the file takes records again.

A segment that can't be sealed and renamed grows on, and events are written as usual. This is reported like any failure,
also in the log, and `"stop-plugins"` stops plugins in this case too.
"""

CAPACITY = 65_536
"""Events that are kept in memory while the file can't take them; about 30 MB."""

SEGMENT_BYTES = 64 << 20
MIN_SEGMENT_BYTES = 4096


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
    """A log file. Its method `record` is an `AuditSink`. Use `async with AuditLog.open(path) as log`."""

    def __init__(self, path: str, file: LogFile, queue: EventQueue, writer: Writer, when_full: WhenFull) -> None:
        self.path = path
        self.when_full: WhenFull = when_full
        self.record: AuditSink = queue.put  # bound directly: every decision of every plugin is recorded here
        """Takes one event, from any thread. Never raises, and blocks only if `when_full` is `"block"`."""
        self.watch = writer.watch
        self._file = file
        self._queue = queue
        self._writer = writer
        self._lost_reported = 0  # lost events that a `flush` has raised for
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
            path: a regular file; created with mode 0600. A file has one writer: opening it again before the log is
                closed is an error. Hosts of one process may share one `AuditLog`.
            fsync: when the disk must confirm writes; see `Fsync`.
            sync_interval: seconds, for `fsync="interval"`.
            segment_bytes: a file that has grown to this size is sealed and renamed to `PATH.000001` and so on.
            when_full: what happens when the file can't take an event; see `WhenFull`.
            key: 16 to 64 secret bytes that key the hashes. Without a key, anyone who can write the file can compute a
                new chain.
            keep_queries: whether targets keep query string, fragment and user of a URL, instead of `…`.
            capacity: events kept in memory while the file can't take them.
            on_failure: called with the first error of each series of errors, on the log's thread.

        Raises:
            AuditError: the file can't be opened for appending, another writer has it open, or it isn't a log with that
                key. The cause is chained.
            ValueError: an option is out of range.
        """
        if key and len(key) not in KEY_SIZES:
            raise ValueError(f"an audit key has {KEY_SIZES.start} to {KEY_SIZES.stop - 1} bytes, not {len(key)}")
        if segment_bytes < MIN_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes must be at least {MIN_SEGMENT_BYTES} bytes, not {segment_bytes}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        if not 0 < sync_interval < threading.TIMEOUT_MAX:
            raise ValueError(f"sync_interval must be a positive number of seconds, not {sync_interval}")
        name = os.fspath(path)
        file = LogFile(os.path.realpath(name), key, segment_bytes, durable=fsync == "each")
        try:
            file.open()
        except OSError as error:
            file.close()
            raise AuditError(name, f"cannot be opened: {error}") from error
        queue = EventQueue(name, capacity, block=when_full == "block")
        encode = Encoder(keep_queries=keep_queries).members
        writer = Writer(name, queue, file, encode, sync_interval if fsync == "interval" else None)
        if on_failure is not None:
            writer.watch(on_failure)
        writer.thread.start()
        return cls(name, file, queue, writer, when_full)

    @property
    def failure(self) -> OSError | None:
        """The present error of the file; `None` while it takes events."""
        return self._writer.failure

    @property
    def lost(self) -> int:
        """Events that were dropped since the log was opened."""
        return self._queue.lost

    @property
    def head(self) -> str:
        """The hash of the last record that this log wrote. Published elsewhere, it proves all records up to it."""
        return self._file.position.head.hex()

    def flush(self, timeout: float | None = None) -> None:
        """Returns when every event that this thread recorded before is acknowledged. Blocks.

        Raises:
            AuditError: the file doesn't take the events at present, or not within `timeout` seconds (they're still
                kept); or events were dropped since the last `flush`; or the log is closed.
        """
        request = self._queue.request_flush()
        if not self._writer.thread.is_alive():
            raise AuditError(self.path, "is closed")
        try:
            error = request.exception(timeout)
        except TimeoutError:
            raise AuditError(self.path, f"did not confirm within {timeout} seconds") from None
        if error is not None:
            raise AuditError(self.path, f"not confirmed: {error}") from error
        lost, self._lost_reported = self.lost - self._lost_reported, self.lost
        if lost:
            raise AuditError(self.path, f"{_events(lost)} lost", lost)

    async def aflush(self, timeout: float | None = None) -> None:
        """`flush`, without blocking the event loop."""
        await asyncio.to_thread(self.flush, timeout)

    def close(self) -> None:
        """Writes the remaining events, seals and syncs the file, and ends the thread. Blocks; can be called twice.

        Raises:
            AuditError: events were lost, or the disk did not confirm them.
        """
        if self._closed:
            return
        self._closed = True
        self._queue.close()
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
            reason = f": {failure}" if failure is not None else ""
            raise AuditError(self.path, f"{_events(self.lost)} lost{reason}", self.lost) from failure
        if failure is not None:
            raise AuditError(self.path, f"not confirmed by the disk: {failure}") from failure

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _events(count: int) -> str:
    return "1 event was" if count == 1 else f"{count} events were"
