"""Text that came from a plugin or a peer, made safe to print. Knows nothing of rules or plugins."""

import unicodedata

# Cc control, Cf format (bidirectional marks, zero-width characters), Cs surrogate, Co private use,
# Cn unassigned, Zl and Zp line and paragraph separators: none of them may shape a terminal line.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

LONGEST = 2048
"""Characters of a target that are kept; what a plugin sends can be of any length."""


def escape(text: str, limit: int = LONGEST) -> str:
    r"""Returns `text` with every character that could forge or hide output as `\uXXXX`, cut to `limit`."""
    cut = text[:limit]
    if not cut.isprintable():  # of these categories and of spaces none is printable: the fast way lets none through
        cut = "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in cut)
    return cut if len(text) <= limit else f"{cut}… ({len(text)} characters)"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
