"""A log of events in a file of JSON lines, written by a thread of its own.

What happens when the file cannot take an event:

- the batch is kept and tried again, the error goes to the logger `nyx.audit` and to `on_failure` at once;
- meanwhile events wait in memory, up to `capacity`; what comes after that is dropped and counted;
- when the file takes lines again, the first of them says how many events are missing;
- `close` tries once more and raises `AuditError` if one event was lost.

Imports nothing of Nyx but the event, its line, the file and the error tree.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from types import TracebackType
from typing import Self

from nyx_stream.audit.event import AuditEvent
from nyx_stream.audit.file import append, open_log
from nyx_stream.audit.line import to_line
from nyx_stream.errors import AuditError

_log = logging.getLogger("nyx.audit")

CAPACITY = 65_536
"""Events that wait in memory while the file cannot take them; about 30 MB."""

_BATCH = 512
_PAUSE = 0.25
"""Seconds between two tries of a batch that the file refused."""


class AuditLog:
    """An `AuditSink` (its `record`) over a file. Use `async with AuditLog.open(path) as log`."""

    def __init__(
        self,
        path: str,
        descriptor: int,
        capacity: int = CAPACITY,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> None:
        self.path = path
        self.failure: OSError | None = None
        """The error that the file gives at present; `None` while it takes lines."""
        self.lost = 0
        """Events that were dropped since the log was opened."""
        self._descriptor = descriptor
        self._capacity = capacity
        self._on_failure = on_failure
        self._waiting: deque[AuditEvent] = deque()
        self._reported = 0  # of `lost`, how many the file itself tells of
        self._size = _BATCH
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._closed = False
        # An empty context: the thread must not count as the plugin that happened to open the log.
        self._thread = threading.Thread(target=Context().run, args=(self._run,), name="nyx-audit", daemon=True)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        capacity: int = CAPACITY,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> "AuditLog":
        """Opens or creates the log at `path` and starts its thread.

        Args:
            path: a regular file; created with mode 0600. Several logs may share it.
            capacity: events kept in memory while the file cannot take them.
            on_failure: is told the first error of every row of errors, on the log's thread.

        Raises:
            AuditError: the file cannot be opened for appending. The cause is chained.
        """
        name = os.fspath(path)
        try:
            descriptor = open_log(name)
        except OSError as error:
            raise AuditError(name, f"cannot be opened: {error}") from error
        log = cls(name, descriptor, capacity, on_failure)
        log._thread.start()
        return log

    def record(self, event: AuditEvent) -> None:
        """Takes one event, from any thread. Never blocks on the file and never raises."""
        if self._closed or len(self._waiting) >= self._capacity:
            self._drop(1)
            if self._closed:
                _log.error("audit log %s is closed: an event was dropped", self.path)
            return
        self._waiting.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Writes what waits, syncs the file and ends the thread. Blocks; a second call does nothing.

        Raises:
            AuditError: events were lost, or the disk did not confirm them.
        """
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if self._waiting:
            self._drop(len(self._waiting))
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.failure = error
        finally:
            os.close(self._descriptor)
        if self.lost:
            why = f": {self.failure}" if self.failure is not None else ""
            raise AuditError(self.path, f"{self.lost} events were lost{why}", self.lost) from self.failure
        if self.failure is not None:
            raise AuditError(self.path, f"not confirmed by the disk: {self.failure}") from self.failure

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _drop(self, count: int) -> None:
        with self._counting:
            self.lost += count

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()  # read first: what was recorded before `close` is then in the queue
            self._wake.clear()
            while self._waiting or self.lost > self._reported:
                if self._write_batch():
                    continue
                if closing or self._closing.is_set():
                    return
                self._closing.wait(_PAUSE)
            if closing:
                return
            self._wake.wait()

    def _write_batch(self) -> bool:
        """Moves one batch from memory to the file; returns whether to go on at once.

        The events leave memory only after the file took them.
        """
        count = min(len(self._waiting), self._size)
        lost = self.lost
        lines = [to_line(self._waiting[place]) for place in range(count)]
        if lost > self._reported:
            lines.append(to_line(_missing(lost - self._reported)))
        try:
            append(self._descriptor, b"".join(lines))
        except OSError as error:
            self._failed(error)
            # The last bytes of a disk still take a line or two: smaller batches are tried at once.
            self._size = max(1, count // 2)
            return count > 1
        for _ in range(count):
            self._waiting.popleft()
        self._reported = lost
        self._size = min(_BATCH, self._size * 2)
        if self.failure is not None and not self._waiting:
            _log.warning("audit log %s: takes events again", self.path)
            self.failure = None
        return True

    def _failed(self, error: OSError) -> None:
        if self.failure is None:
            _log.error("audit log %s: %s; events wait in memory", self.path, error)
            if self._on_failure is not None:
                try:
                    self._on_failure(error)
                except Exception:
                    _log.exception("audit log %s: on_failure raised", self.path)
        self.failure = error


def _missing(count: int) -> AuditEvent:
    return AuditEvent(
        time.time(),
        None,
        "audit",
        "drop",
        f"{count} events",
        False,
        None,
        "the log could not take them",
        "host",
    )
