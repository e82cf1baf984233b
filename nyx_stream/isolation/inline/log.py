"""A plugin's logger: into the host's logging, but as text that cannot forge a line, and as the host's own act.

The message is put together as the plugin (its `__str__` may run), then handed to the host's handlers as the host (a
handler may open its file). Knows no isolation level.
"""

import logging
from collections.abc import MutableMapping
from typing import Any

from nyx_stream.attribution import as_host
from nyx_stream.text import escape

_formatter = logging.Formatter()


class PluginLog(logging.LoggerAdapter[logging.Logger]):
    """Logs to `nyx.plugin.<id>`. Control characters are escaped; a traceback keeps its lines."""

    def __init__(self, plugin: str) -> None:
        super().__init__(logging.getLogger(f"nyx.plugin.{plugin}"), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `logging.Logger.log`; `extra` and `stack_info` are not passed on."""
        if not self.isEnabledFor(level):
            return
        text = escape(str(msg) % args if args else str(msg))
        trace = _trace(kwargs.get("exc_info"))
        if trace:
            text = "\n".join([text, *(escape(line) for line in trace.splitlines())])
        with as_host():
            self.logger.log(level, "%s", text, stacklevel=kwargs.get("stacklevel", 1) + 1)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def _trace(given: Any) -> str:
    if not given:
        return ""
    if isinstance(given, BaseException):
        given = (type(given), given, given.__traceback__)
    elif not isinstance(given, tuple):
        import sys

        given = sys.exc_info()
    return _formatter.formatException(given) if given[0] is not None else ""
