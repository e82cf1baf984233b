"""Exceptions of a plugin as text. Their `__str__` is the plugin's code: it may raise, and it may say anything."""

import traceback

from nyx_stream.text import escape

_LONGEST = 64 * 1024
"""Characters of a traceback that are kept, the last ones."""


def describe(error: BaseException) -> str:
    """Returns class and message of `error` on one line. Call it with the plugin's attribution."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # also SystemExit: it would end the host in place of the call
        text = "its message cannot be read"
    return f"{type(error).__name__}: {escape(text)}" if text else type(error).__name__


def trace_of(error: BaseException) -> str:
    """Returns the traceback of `error` with its causes. Call it with the plugin's attribution."""
    try:
        lines = "".join(traceback.format_exception(error))[-_LONGEST:].splitlines()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return describe(error)
    return "\n".join(escape(line) for line in lines)
