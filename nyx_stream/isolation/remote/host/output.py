"""What a process writes to a pipe, as lines. Paced, so that a flood of lines costs the host little: the writer waits.

Knows no plugin and no logger.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.text import escape

_READ = 1024
"""Bytes read at once."""
_LONGEST = 4096
"""Bytes of the longest line; a longer one is cut into several."""
_PAUSE = 0.01
_LINES = 10
"""Lines taken before a pause: about 1,000 lines a second."""
_TAIL = 20
_LAST = 50
"""Lines of what was left in the pipe that are written when the process has ended."""


class Output:
    """The reading end of a pipe, read on the event loop; `write` gets each line, safe to print.

    `tail` has the last lines. The descriptor is this object's from now on.
    """

    def __init__(self, descriptor: int, write: Callable[[str], None], turns: FairScheduler) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._write = write
        self._turns = turns
        self._lines: deque[str] = deque()
        """Lines that wait for a turn; nothing more is read before they are gone."""
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._taken = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._loop.add_reader(descriptor, self._readable)

    def drain(self) -> None:
        """Takes what is in the pipe now, all at once: the process has ended. Of a flood only the tail is written."""
        lines: deque[str] = deque(self._lines, maxlen=_LAST)
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
            self._turns.next(self._hand_over)

    def _hand_over(self) -> None:
        """Has a turn: hands over a line. After some of them there is a pause."""
        if self._closed or not self._lines:
            return
        self._write(self._lines.popleft())
        self._taken += 1
        if self._taken >= _LINES:
            self._taken = 0
            self._timer = self._loop.call_later(_PAUSE, self._resume)
        else:
            self._resume()

    def _resume(self) -> None:
        if self._lines:
            self._turns.next(self._hand_over)
        else:
            self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> list[str] | None:
        """Returns the lines that are complete; `None` at the end of the pipe."""
        data = os.read(self._descriptor, _READ)
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            whole.append(self._rest)
            self._rest = b""
        return [self._line(line) for line in whole]

    def _line(self, line: bytes) -> str:
        text = escape(line.decode("utf-8", "replace"))
        self.tail.append(text)
        return text
