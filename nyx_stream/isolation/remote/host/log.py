"""Host side of a worker's output: its log records, and the lines of its standard output and error.

Both are rate-limited. The worker may send only as many records as the protocol allows before they are acknowledged, and
acknowledgements go out on a timer. A pipe is read line by line with pauses, so its writer blocks.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from nyx_stream.isolation.remote.wire.channel import Channel, FairScheduler
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind
from nyx_stream.isolation.remote.wire.messages import LogRecord, decode
from nyx_stream.text import escape

_ACKNOWLEDGE_AFTER = 0.01
"""Seconds between two acknowledgements, of 16 records each. Small steps leave the host time for other work."""

_READ = 1024
"""Bytes read at once."""
_MAX_LINE = 4096
"""Bytes of a line; a longer one is split."""
_PAUSE = 0.01
_LINES = 10
"""Lines between two pauses: about 1,000 lines a second."""
_TAIL = 20
_MAX_DRAINED = 50
"""Lines left in the pipe that are written after the process has ended."""


class WorkerLog:
    """Logs the records of a worker, with control characters escaped, and acknowledges them on `channel`."""

    def __init__(self, logger: logging.Logger, channel: Channel) -> None:
        self._logger = logger
        self._channel = channel
        self._unacknowledged = 0
        self._timer: asyncio.TimerHandle | None = None

    def on_record(self, frame: Frame) -> None:
        """Handles LOG. Raises `ProtocolFault` if it is malformed."""
        record = decode(LogRecord, frame)
        if self._logger.isEnabledFor(record.level):
            lines = [escape(record.message), *(escape(line) for line in record.trace.splitlines())]
            self._logger.log(record.level, "%s", "\n".join(lines))
        self._unacknowledged += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_ACKNOWLEDGE_AFTER, self._acknowledge)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge(self) -> None:
        self._timer = None
        count, self._unacknowledged = self._unacknowledged, 0
        self._channel.send(FrameKind.LOG_ACK, detail=count)


class Output:
    """Reads the lines of a pipe on the event loop; `write` gets each line, safe to print.

    `tail` has the last lines. This object owns the descriptor.
    """

    def __init__(self, descriptor: int, write: Callable[[str], None], scheduler: FairScheduler) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._write = write
        self._scheduler = scheduler
        self._lines: deque[str] = deque()
        """Lines that wait for the scheduler. Reading is paused meanwhile."""
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._loop.add_reader(descriptor, self._readable)

    def drain(self) -> None:
        """Writes what is left in the pipe of a process that has ended. Of a flood only the last lines are written."""
        lines: deque[str] = deque(self._lines, maxlen=_MAX_DRAINED)
        self._lines.clear()
        with suppress(BlockingIOError):
            while not self._closed and (found := self._read()) is not None:
                lines.extend(found)
        if self._rest:
            lines.append(self._line(self._rest))
            self._rest = b""
        for line in lines:
            self._write(line)

    def close(self) -> None:
        """Closes the pipe. Can be called again."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        os.close(self._descriptor)

    def _readable(self) -> None:
        try:
            lines = self._read()
        except (BlockingIOError, InterruptedError):
            return
        if lines is None:
            self._loop.remove_reader(self._descriptor)
            return
        if lines:
            self._lines.extend(lines)
            self._loop.remove_reader(self._descriptor)
            self._scheduler.run(self._write_line)

    def _write_line(self) -> None:
        """A step of the scheduler: writes one line. After `_LINES` of them there is a pause."""
        if self._closed or not self._lines:
            return
        self._write(self._lines.popleft())
        self._written += 1
        if self._written >= _LINES:
            self._written = 0
            self._timer = self._loop.call_later(_PAUSE, self._resume)
        else:
            self._resume()

    def _resume(self) -> None:
        if self._lines:
            self._scheduler.run(self._write_line)
        else:
            self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> list[str] | None:
        """Returns the complete lines, or `None` at the end of the pipe."""
        data = os.read(self._descriptor, _READ)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [self._line(line) for line in lines]

    def _line(self, line: bytes) -> str:
        text = escape(line.decode("utf-8", "replace"))
        self.tail.append(text)
        return text
