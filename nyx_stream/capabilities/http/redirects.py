"""Which `Location` values may be followed at all. Pure text; where they lead is then decided like any request.

A value that two parsers could read as two hosts is refused before either reads it.
"""

import re

_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]").search
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):").match


def why_not(location: str, scheme: str) -> str | None:
    """Why a response to a `scheme` request may not send its client to `location`; `None` if it may be tried.

    Only http to https changes the scheme.
    """
    if not location:
        return "the Location is empty"
    if _AMBIGUOUS(location):
        return "the Location holds a backslash, a space or a control character"
    named = _SCHEME(location)
    if named and named[1].lower() not in (scheme, "https"):
        return f"the Location leaves {scheme} for {named[1].lower()}"
    rest = location[named.end() :] if named else location
    if named and not rest.startswith("//"):
        return "the Location names a scheme and no host"
    authority = re.split(r"[/?#]", rest[2:], maxsplit=1)[0] if rest.startswith("//") else ""
    if "@" in authority:
        return "the Location holds a user name"
    return None
