"""Makes text from a plugin or a peer safe to print."""

import unicodedata

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
