"""The queue between the threads that record events and the thread that writes them."""

import logging
import threading
from collections import deque

from nyx_stream.audit.event import AuditEvent

_log = logging.getLogger("nyx.audit")


class FlushRequest:
    """Marks a position in the queue; completed when every event before it is written. `error` says why it failed."""

    __slots__ = ("_completed", "error")

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._completed = threading.Event()

    def complete(self, error: OSError | None = None) -> None:
        """Wakes the waiting thread. Only the first call counts."""
        if not self._completed.is_set():
            self.error = error
            self._completed.set()

    def wait(self, timeout: float | None) -> bool:
        """Returns whether it was completed in time."""
        return self._completed.wait(timeout)


class EventQueue:
    """A bounded queue: any thread puts, one thread takes.

    Args:
        path: of the log, for messages.
        capacity: maximum number of events.
        block: whether `put` waits when the queue is full; otherwise the event is dropped and counted.
    """

    def __init__(self, path: str, capacity: int, *, block: bool) -> None:
        self.items: deque[AuditEvent | FlushRequest] = deque()
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

    def request_flush(self) -> FlushRequest:
        """Adds a flush request behind everything that this thread has put."""
        request = FlushRequest()
        self.items.append(request)
        self.wake.set()
        return request

    def take(self) -> AuditEvent | FlushRequest | None:
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
