"""A sealed plugin's logger: sends its records to the host, in order, without making the plugin wait.

Up to `MAX_LOG_RECORDS` are under way, some more wait here, and beyond that they are counted and dropped; the count is
the next record.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from nyx_stream.isolation.remote.wire.frames import FrameKind
from nyx_stream.isolation.remote.wire.messages import LogRecord, text
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.text import exception_of, format_traceback

_MAX_WAITING = 1000
"""Records that may wait here."""
_MAX_TRACE = 32 * 1024
"""Characters of a traceback that are sent, the last ones."""


class RemoteLog(logging.LoggerAdapter[logging.Logger]):
    """The logger that a plugin sees. It sends records of every level: the host filters them."""

    def __init__(self, plugin: str, connection: ProtocolConnection, send: Callable[[FrameKind, bytes], None]) -> None:
        super().__init__(logging.getLogger(f"nyx.plugin.{plugin}"), {})
        self.logger.setLevel(logging.DEBUG)
        self._connection = connection
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._dropped = 0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `logging.Logger.log`; ignores `extra`, `stack_info` and `stacklevel`."""
        message = text(str(msg) % args if args else str(msg))
        error = exception_of(kwargs.get("exc_info"))
        trace = "" if error is None else text(format_traceback(error))[-_MAX_TRACE:]
        record = LogRecord(level=min(max(level, 0), 100), message=message, trace=trace)
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(record.encode())
        else:
            self._dropped += 1
        self.flush()

    def flush(self) -> None:
        """Sends as many records as the protocol allows now."""
        while self._waiting and self._connection.can_log():
            self._send(FrameKind.LOG, self._waiting.popleft())
        if self._dropped and not self._waiting and self._connection.can_log():
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped} records were dropped: the host takes no more"
            self._send(FrameKind.LOG, LogRecord(level=logging.WARNING, message=message).encode())
