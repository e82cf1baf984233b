"""The queue and the thread of an audit log: batches, syncs, rotation, and retries while the file is failing.

Theory of operation
-------------------
Recording an event appends it to a queue and returns, so a decision never waits for the disk. One thread takes events
from the queue, encodes them, and appends a batch with one write(2); rotation and syncs happen on this thread too.

A batch leaves memory only after the file took it. When an append fails, the batch stays, the failure is reported once
to the logger and the watchers, and the append is retried four times a second with smaller batches: the last bytes of a
full disk may still hold a record or two. Meanwhile events collect in the queue. When that's full they're dropped and
counted, or the recording threads wait, as `when_full` says. The first batch that succeeds carries a record with the
number of dropped events.

A flush puts a future into the queue. It's done when everything before it is in the file. While the file is failing it
fails at once, because that can last long.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from functools import partial

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.file import LogFile
from nyx_stream.audit.record import notice

_log = logging.getLogger("nyx.audit")

_MAX_BATCH = 512
_RETRY_INTERVAL = 0.25
"""Seconds between two attempts to append a batch."""


class EventQueue:
    """A bounded queue: any thread puts, one thread takes.

    If it's full, `put` waits with `block`, and otherwise drops the event and counts it.
    """

    def __init__(self, path: str, capacity: int, *, block: bool) -> None:
        self.items: deque[AuditEvent | Future[None]] = deque()
        self.lost = 0
        """Events that were dropped."""
        self.wake = threading.Event()
        """Set when there's something for the consumer to do."""
        self.consumer: threading.Thread | None = None
        """The thread that takes. It never waits for space, since only it can make any."""
        self._path = path
        self._capacity = capacity
        self._block = block
        self._closed = False
        self._lost_lock = threading.Lock()
        self._has_space = threading.Condition()
        self._blocked_threads = 0

    def put(self, event: AuditEvent) -> None:
        """Adds an event, or drops and counts it."""
        if len(self.items) >= self._capacity and not self._wait_for_space():
            self.count_lost(1)
            return
        self.items.append(event)
        if not self.wake.is_set():
            self.wake.set()

    def request_flush(self) -> Future[None]:
        """Adds a future behind everything that this thread has put; it's done when all of that is written."""
        request: Future[None] = Future()
        self.items.append(request)
        self.wake.set()
        return request

    def take(self) -> AuditEvent | Future[None] | None:
        """Takes the oldest item, or returns `None` if the queue is empty."""
        if not self.items:
            return None
        item = self.items.popleft()
        if self._blocked_threads:
            with self._has_space:
                self._has_space.notify()
        return item

    def count_lost(self, count: int) -> None:
        """Counts events as lost."""
        with self._lost_lock:
            self.lost += count

    def close(self) -> None:
        """Makes `put` drop and count every event from now on, and wakes the threads that wait for space."""
        self._closed = True
        self._capacity = 0  # so that `put` needs only one check
        self.wake.set()
        with self._has_space:
            self._has_space.notify_all()

    def _wait_for_space(self) -> bool:
        if self._block and not self._closed and threading.current_thread() is not self.consumer:
            with self._has_space:
                self._blocked_threads += 1  # before the check: `take` reads it after it has made space
                try:
                    while len(self.items) >= self._capacity and not self._closed:
                        self._has_space.wait()
                finally:
                    self._blocked_threads -= 1
            if not self._closed:
                return True
        if self._closed:
            _log.error("audit log %s is closed: an event was dropped", self._path)
        return False


class Writer:
    """Moves events from a queue to an open file, which only its thread uses until `stop` has returned.

    `encode` turns an event into the members of its record, and must not raise. `sync_interval` is in seconds; `None`
    means that the file isn't synced.
    """

    def __init__(
        self,
        path: str,
        queue: EventQueue,
        file: LogFile,
        encode: Callable[[AuditEvent], bytes],
        sync_interval: float | None,
    ) -> None:
        self.failure: OSError | None = None
        """The present error of the file, or `None` while it takes events."""
        self._path = path
        self._queue = queue
        self._file = file
        self._encode = encode
        self._sync_interval = sync_interval
        self._next_sync: float | None = None  # `None` if there's nothing to sync
        self._batch: list[bytes] = []  # encoded, but not in the file yet
        self._flush: Future[None] | None = None  # follows the batch
        self._lost_reported = 0  # lost events that a record in the file has reported
        self._batch_size = _MAX_BATCH
        self._closing = threading.Event()
        self._watchers: dict[object, Callable[[OSError], object]] = {}
        # An empty context: the thread must not be attributed to the plugin that was running when the log was opened.
        self.thread = threading.Thread(target=Context().run, args=(self._run,), name="nyx-audit", daemon=True)
        queue.consumer = self.thread

    def stop(self) -> None:
        """Ends the thread after one more attempt to write everything. Events that remain are counted as lost."""
        self._closing.set()
        self._queue.wake.set()
        self.thread.join()
        remaining = len(self._batch)
        while (item := self._queue.take()) is not None:
            if isinstance(item, AuditEvent):
                remaining += 1
            else:
                _complete(item, self.failure or OSError("the log was closed"))
        if remaining:
            self._queue.count_lost(remaining)

    def watch(self, on_failure: Callable[[OSError], object]) -> Callable[[], object]:
        """Calls `on_failure` with the first error of each series of errors, on the log's thread.

        Returns a function that ends this.
        """
        key = object()  # the same function may be registered twice
        self._watchers[key] = on_failure
        return partial(self._watchers.pop, key, None)

    def _run(self) -> None:
        try:
            self._write_until_closing()
        except Exception as error:  # a bug must not look like a log that works
            _log.exception("audit log %s: its thread ended", self._path)
            self._set_failure(OSError(f"the log's thread ended: {type(error).__name__}"), "no more events are written")

    def _write_until_closing(self) -> None:
        while True:
            closing = self._closing.is_set()  # read first: everything recorded before `stop` is then in the queue
            self._queue.wake.clear()
            while self._queue.items or self._batch or self._queue.lost > self._lost_reported:
                if self._write_batch():
                    continue
                if closing or self._closing.is_set():
                    return
                self._closing.wait(_RETRY_INTERVAL)
            if closing:
                return
            self._queue.wake.wait(None if self._next_sync is None else max(0.0, self._next_sync - time.monotonic()))
            self._sync_if_due()

    def _write_batch(self) -> bool:
        """Writes one batch; returns whether to continue at once."""
        self._fill_batch()
        count = min(len(self._batch), self._batch_size)
        lost = self._queue.lost
        members = self._batch[:count]
        if lost > self._lost_reported:
            missing = f"{lost - self._lost_reported} events"
            members.append(self._encode(notice("drop", missing, "the log could not take them", time.time())))
        if members:
            try:
                self._file.append(members)
            except OSError as error:
                self._set_failure(error, "events are kept in memory")
                self._fail_flushes(error)
                self._batch_size = max(1, count // 2)
                return count > 1
            del self._batch[:count]
            self._lost_reported = lost
            self._after_write()
        if self.failure is not None and not self._batch and len(self._queue.items) < self._batch_size:  # caught up
            _log.warning("audit log %s: takes events again", self._path)
            self.failure = None
        if self._flush is not None and not self._batch:
            _complete(self._flush)
            self._flush = None
        return True

    def _fill_batch(self) -> None:
        """Encodes events until the batch is full, or up to the next flush request."""
        if self._flush is not None:
            return
        batch, take, encode = self._batch, self._queue.take, self._encode
        for _ in range(self._batch_size - len(batch)):
            item = take()
            if item is None:
                return
            if isinstance(item, Future):
                self._flush = item
                return
            batch.append(encode(item))

    def _after_write(self) -> None:
        self._batch_size = min(_MAX_BATCH, self._batch_size * 2)
        if self._sync_interval is not None and self._next_sync is None:
            self._next_sync = time.monotonic() + self._sync_interval
        self._sync_if_due()
        if self._file.full:
            try:
                self._file.rotate()
            except OSError as error:
                self._report("rotate", error, "the segment grows beyond its size")

    def _sync_if_due(self) -> None:
        if self._next_sync is None or time.monotonic() < self._next_sync:
            return
        self._next_sync = None
        try:
            self._file.sync()
        except OSError as error:
            self._report("sync", error, "records written since the last sync may be lost in a power cut")

    def _report(self, action: str, error: OSError, effect: str) -> None:
        """Reports a failure that loses no event to the watchers and in the log itself."""
        self._set_failure(error, effect)
        self._batch.append(self._encode(notice(action, self._path, f"{error.strerror}: {effect}", time.time())))

    def _set_failure(self, error: OSError, effect: str) -> None:
        first, self.failure = self.failure is None, error
        if first:
            _log.error("audit log %s: %s; %s", self._path, error, effect)
            for on_failure in tuple(self._watchers.values()):
                try:
                    on_failure(error)
                except Exception:
                    _log.exception("audit log %s: on_failure raised", self._path)

    def _fail_flushes(self, error: OSError) -> None:
        """Fails every waiting flush request."""
        if self._flush is not None:
            _complete(self._flush, error)
        for index in range(len(self._queue.items)):
            item = self._queue.items[index]  # by index: other threads append meanwhile, but only this one takes
            if isinstance(item, Future):
                _complete(item, error)


def _complete(flush: Future[None], error: OSError | None = None) -> None:
    if flush.done():  # it failed while the file was failing
        return
    if error is None:
        flush.set_result(None)
    else:
        flush.set_exception(error)
