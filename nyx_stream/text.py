"""Makes text from a plugin or a peer safe to print."""

import sys
import traceback
import unicodedata
from typing import Any

# Cc control, Cf format (bidirectional marks, zero-width characters), Cs surrogate, Co private use, Cn unassigned, Zl
# and Zp line and paragraph separators: each of them can change how a terminal shows a line.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

MAX_LENGTH = 2048
"""Characters that are kept; a plugin can send text of any length."""


def escape(text: str, limit: int = MAX_LENGTH) -> str:
    r"""Returns `text` with every character that could forge or hide output as `\uXXXX`, cut to `limit`."""
    cut = text[:limit]
    if not cut.isprintable():  # false if there is any character of these categories
        cut = "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in cut)
    return cut if len(text) <= limit else f"{cut}… ({len(text)} characters)"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


_MAX_TRACEBACK = 64 * 1024
"""Characters of a traceback that are kept, the last ones."""


def describe_error(error: BaseException) -> str:
    """Returns class and message of an exception on one line.

    `__str__` of a plugin's exception is the plugin's code: call this with the plugin's attribution.
    """
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit as well: it would end the host instead of the call
        text = "its message cannot be read"
    return f"{type(error).__name__}: {escape(text)}" if text else type(error).__name__


def format_traceback(error: BaseException) -> str:
    """Returns the traceback of an exception with its causes. Call this with the plugin's attribution."""
    try:
        lines = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:].splitlines()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return describe_error(error)
    return "\n".join(escape(line) for line in lines)


def exception_of(exc_info: Any) -> BaseException | None:
    """Returns the exception of an `exc_info` argument, in any form that `logging` accepts."""
    if isinstance(exc_info, BaseException):
        return exc_info
    found = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1] if exc_info else None
    return found if isinstance(found, BaseException) else None
