"""Events on their way from whoever caused them to the thread that writes them. Knows neither files nor lines."""

import logging
import threading
from collections import deque

from nyx_stream.audit.event import AuditEvent

_log = logging.getLogger("nyx.audit")


class Confirmation:
    """Stands in the queue behind the events that it is asked for; `error` says why they are not confirmed."""

    __slots__ = ("_given", "error")

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._given = threading.Event()

    def give(self, error: OSError | None = None) -> None:
        """Answers whoever waits; only the first answer counts."""
        if not self._given.is_set():
            self.error = error
            self._given.set()

    def wait(self, timeout: float | None) -> bool:
        """Returns whether it was answered in time."""
        return self._given.wait(timeout)


class EventQueue:
    """The queue: any thread puts, one thread takes.

    Args:
        path: of the log, for messages.
        capacity: events that it holds.
        block: whether `put` waits for room; otherwise the event is dropped and counted.
    """

    def __init__(self, path: str, capacity: int, *, block: bool) -> None:
        self.items: deque[AuditEvent | Confirmation] = deque()
        self.lost = 0
        """Events that were dropped."""
        self.wake = threading.Event()
        self.taker: threading.Thread | None = None
        """The thread that takes: it never waits for itself."""
        self._path = path
        self._capacity = capacity
        self._block = block
        self._closed = False
        self._counting = threading.Lock()
        self._room = threading.Condition()
        self._blocked = 0

    def put(self, event: AuditEvent) -> None:
        """Adds an event, or drops and counts it."""
        if len(self.items) >= self._capacity and not self._wait_for_room():
            self.drop(1)
            return
        self.items.append(event)
        if not self.wake.is_set():
            self.wake.set()

    def ask(self) -> Confirmation:
        """Adds a confirmation behind everything that this thread has put."""
        asked = Confirmation()
        self.items.append(asked)
        self.wake.set()
        return asked

    def take(self) -> AuditEvent | Confirmation | None:
        """Takes the oldest, or `None`."""
        if not self.items:
            return None
        item = self.items.popleft()
        if self._blocked:
            with self._room:
                self._room.notify()
        return item

    def drop(self, count: int) -> None:
        """Counts events as lost."""
        with self._counting:
            self.lost += count

    def close(self) -> None:
        """From now on every event is dropped and counted; who waits for room goes on."""
        self._closed = True
        self._capacity = 0  # so that `put` has one thing to look at
        self.wake.set()
        with self._room:
            self._room.notify_all()

    def _wait_for_room(self) -> bool:
        if self._block and not self._closed and threading.current_thread() is not self.taker:
            with self._room:
                self._blocked += 1  # first: `take` looks at it after it has made room
                try:
                    while len(self.items) >= self._capacity and not self._closed:
                        self._room.wait()
                finally:
                    self._blocked -= 1
            if not self._closed:
                return True
        if self._closed:
            _log.error("audit log %s is closed: an event was dropped", self._path)
        return False
