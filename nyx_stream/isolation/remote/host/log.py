"""Host side of what a worker says: its log records, and its standard output and error as records of the same logger.

Records are taken at a bounded rate: the worker may send no more than the protocol allows before the last ones are
acknowledged, and that happens on a timer. Knows no process.
"""

import asyncio
import logging

from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, Kind
from nyx_stream.isolation.remote.wire.messages import LogRecord, decode
from nyx_stream.text import escape

_PERIOD = 0.01
"""Seconds between two acknowledgements, of 16 records each: small steps, for the host does other things between."""

_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}


class LogIntake:
    """Writes to `nyx.plugin.<id>`, escaped."""

    def __init__(self, plugin: str) -> None:
        self._logger = logging.getLogger(f"nyx.plugin.{plugin}")
        self._channel: Channel | None = None
        self._taken = 0
        self._timer: asyncio.TimerHandle | None = None

    def open(self, channel: Channel) -> None:
        """Names the channel that acknowledgements go to."""
        self._channel = channel

    def take(self, frame: Frame) -> None:
        """Takes a LOG. Raises `ProtocolFault` if it is malformed."""
        record = decode(LogRecord, frame)
        if self._logger.isEnabledFor(record.level):
            lines = [escape(record.message), *(escape(line) for line in record.trace.splitlines())]
            self._logger.log(record.level, "%s", "\n".join(lines))
        self._taken += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PERIOD, self._acknowledge)

    def line(self, stream: str, text: str) -> None:
        """Takes a line of `"stdout"` or `"stderr"`, safe to print."""
        self._logger.log(_LEVELS[stream], "%s: %s", stream, text)

    def warning(self, message: str) -> None:
        """Logs a warning of the framework that concerns the plugin."""
        self._logger.warning("%s", message)

    def error(self, message: str, error: Exception) -> None:
        """Logs an error of the framework that concerns the plugin."""
        self._logger.error("%s", message, exc_info=error)

    def close(self) -> None:
        """Acknowledges nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge(self) -> None:
        self._timer = None
        taken, self._taken = self._taken, 0
        if self._channel is not None:
            self._channel.send(Kind.LOGGED, detail=taken)
