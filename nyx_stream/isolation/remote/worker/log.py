"""A sealed plugin's logger: its records go to the host, in order, and never make the plugin wait.

As many records as the protocol allows are under way; some more wait here; beyond that they are counted and dropped,
and the count is the next record. Knows no handlers: levels and formats are the host's.
"""

import logging
import sys
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Protocol

from nyx_stream.isolation.code.exception_text import trace_of
from nyx_stream.isolation.remote.wire.frames import Kind
from nyx_stream.isolation.remote.wire.messages import LogRecord, text
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection

_WAITING = 1000
"""Records that wait for the host."""
_TRACE = 32 * 1024
"""Characters of a traceback that are sent, the last ones."""


class _Send(Protocol):
    def __call__(self, kind: Kind, number: int = 0, body: bytes = b"") -> None: ...


class RemoteLog(logging.LoggerAdapter[logging.Logger]):
    """Looks like the logger of an inline plugin. Every level is sent: the host filters."""

    def __init__(self, plugin: str, connection: ProtocolConnection, send: _Send) -> None:
        super().__init__(logging.getLogger(f"nyx.plugin.{plugin}"), {})
        self.logger.setLevel(logging.DEBUG)
        self._connection = connection
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._dropped = 0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `logging.Logger.log`; `extra`, `stack_info` and `stacklevel` mean nothing here."""
        message = text(str(msg) % args if args else str(msg))
        record = LogRecord(level=min(max(level, 0), 100), message=message, trace=_trace(kwargs.get("exc_info")))
        if len(self._waiting) < _WAITING:
            self._waiting.append(record.encode())
        else:
            self._dropped += 1
        self.flush()

    def flush(self) -> None:
        """Sends what may be sent now."""
        while self._waiting and self._connection.log_fits():
            self._send(Kind.LOG, body=self._waiting.popleft())
        if self._dropped and not self._waiting and self._connection.log_fits():
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped} records were dropped: more than the host takes"
            self._send(Kind.LOG, body=LogRecord(level=logging.WARNING, message=message).encode())

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def _trace(given: Any) -> str:
    if not given:
        return ""
    if isinstance(given, tuple):
        given = given[1]
    elif not isinstance(given, BaseException):
        given = sys.exc_info()[1]
    return text(trace_of(given))[-_TRACE:] if isinstance(given, BaseException) else ""
