"""The thread of an audit log: takes events, writes them in batches, syncs, rotates, and outlasts a full disk.

Knows the queue and the file; what is done about a failure is for others (`watch`).
"""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import Context

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.event_queue import Confirmation, EventQueue
from nyx_stream.audit.file import LogFile
from nyx_stream.audit.record import notice

_log = logging.getLogger("nyx.audit")

_BATCH = 512
_PAUSE = 0.25
"""Seconds between two tries of a batch that the file refused."""


class Writer:
    """Moves events from a queue to a file.

    Args:
        path: of the log, for messages.
        waiting: where events come from.
        file: where they go; opened, and nobody else's until `stop` has returned.
        encode: turns an event into the members of its record, and never raises.
        sync_interval: seconds between two syncs of the file, or `None` for none.
    """

    def __init__(
        self,
        path: str,
        waiting: EventQueue,
        file: LogFile,
        encode: Callable[[AuditEvent], bytes],
        sync_interval: float | None,
    ) -> None:
        self.failure: OSError | None = None
        self._path = path
        self._waiting = waiting
        self._file = file
        self._encode = encode
        self._interval = sync_interval
        self._sync_at: float | None = None  # when the next sync is due; `None` with nothing to sync
        self._batch: list[bytes] = []  # taken from the queue, not in the file yet
        self._asked: Confirmation | None = None  # stands behind the batch
        self._reported = 0  # of the lost events, how many the file itself tells of
        self._size = _BATCH
        self._closing = threading.Event()
        self._watchers: tuple[Callable[[OSError], object], ...] = ()
        self._watching = threading.Lock()
        # An empty context: the thread must not count as the plugin that happened to open the log.
        self._thread = threading.Thread(target=Context().run, args=(self._run,), name="nyx-audit", daemon=True)
        waiting.taker = self._thread

    @property
    def running(self) -> bool:
        """Whether the thread takes events."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after one more try to write everything; what is left is counted as lost."""
        self._closing.set()
        self._waiting.wake.set()
        self._thread.join()
        left = len(self._batch)
        while (item := self._waiting.take()) is not None:
            if isinstance(item, Confirmation):
                item.give(self.failure or OSError("the log was closed"))
            else:
                left += 1
        if left:
            self._waiting.drop(left)

    def watch(self, on_failure: Callable[[OSError], object]) -> Callable[[], None]:
        """Adds somebody to tell the first error of every row; returns what takes them off again."""
        watcher = _Watcher(on_failure)
        with self._watching:
            self._watchers = (*self._watchers, watcher)

        def release() -> None:
            with self._watching:
                self._watchers = tuple(other for other in self._watchers if other is not watcher)

        return release

    def _run(self) -> None:
        try:
            self._write_until_closing()
        except Exception as error:  # a fault of ours must not pass for a log that writes
            _log.exception("audit log %s: its thread ended", self._path)
            self._failed(
                OSError(f"the thread of the log ended: {type(error).__name__}"), "no event is written any more"
            )

    def _write_until_closing(self) -> None:
        while True:
            closing = self._closing.is_set()  # read first: what was recorded before `stop` is then in the queue
            self._waiting.wake.clear()
            while self._waiting.items or self._batch or self._waiting.lost > self._reported:
                if self._write_batch():
                    continue
                if closing or self._closing.is_set():
                    return
                self._closing.wait(_PAUSE)
            if closing:
                return
            self._waiting.wake.wait(None if self._sync_at is None else max(0.0, self._sync_at - time.monotonic()))
            self._sync_if_due()

    def _write_batch(self) -> bool:
        """Moves one batch from memory to the file; returns whether to go on at once.

        The events leave memory only after the file took them.
        """
        self._fill()
        count = min(len(self._batch), self._size)
        lost = self._waiting.lost
        members = self._batch[:count]
        if lost > self._reported:
            missing = f"{lost - self._reported} events"
            members.append(self._encode(notice("drop", missing, "the log could not take them", time.time())))
        if members:
            try:
                self._file.append(members)
            except OSError as error:
                self._failed(error, "events wait in memory")
                self._refuse(error)
                # The last bytes of a disk still take a line or two: smaller batches are tried at once.
                self._size = max(1, count // 2)
                return count > 1
            del self._batch[:count]
            self._reported = lost
            self._written()
        if self.failure is not None and not self._batch and len(self._waiting.items) < self._size:  # it has caught up
            _log.warning("audit log %s: takes events again", self._path)
            self.failure = None
        if self._asked is not None and not self._batch:
            self._asked.give()
            self._asked = None
        return True

    def _fill(self) -> None:
        """Takes events until the batch is full, up to the first confirmation: that is due when they are written."""
        if self._asked is not None:
            return
        batch, take, encode = self._batch, self._waiting.take, self._encode
        for _ in range(self._size - len(batch)):
            item = take()
            if item is None:
                return
            if isinstance(item, Confirmation):
                self._asked = item
                return
            batch.append(encode(item))

    def _written(self) -> None:
        self._size = min(_BATCH, self._size * 2)
        if self._interval is not None and self._sync_at is None:
            self._sync_at = time.monotonic() + self._interval
        self._sync_if_due()
        if self._file.full:
            self._rotate()

    def _sync_if_due(self) -> None:
        if self._sync_at is None or time.monotonic() < self._sync_at:
            return
        self._sync_at = None
        try:
            self._file.sync()
        except OSError as error:
            self._tell("sync", error, "what was written since the last one may be lost in a power cut")

    def _rotate(self) -> None:
        try:
            self._file.rotate()
        except OSError as error:
            self._tell("rotate", error, "the segment grows beyond its size")

    def _tell(self, action: str, error: OSError, what: str) -> None:
        """Reports a failure that loses no event, to everybody and in the log itself."""
        self._failed(error, what)
        self._batch.append(self._encode(notice(action, self._path, f"{error.strerror}: {what}", time.time())))

    def _failed(self, error: OSError, what: str) -> None:
        first, self.failure = self.failure is None, error
        if first:
            _log.error("audit log %s: %s; %s", self._path, error, what)
            for watcher in self._watchers:
                try:
                    watcher(error)
                except Exception:
                    _log.exception("audit log %s: on_failure raised", self._path)

    def _refuse(self, error: OSError) -> None:
        """Answers everybody who waits for a confirmation: it may be long until the file takes their events."""
        if self._asked is not None:
            self._asked.give(error)
        for place in range(len(self._waiting.items)):
            item = self._waiting.items[place]  # by place: others append meanwhile, only this thread takes
            if isinstance(item, Confirmation):
                item.give(error)


class _Watcher:
    """One registration, equal to no other, though the same function may be registered twice."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[OSError], object]) -> None:
        self._call = call

    def __call__(self, error: OSError) -> None:
        self._call(error)
