"""What a record does not keep of a target: query strings, fragments and user names with passwords. Pure text.

All three are where URLs carry secrets: tokens, signatures, passwords. `…` stands where something was taken out.
"""

import re

from nyx_stream.text import MAX_LENGTH

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#]*)([?#])\S+", re.IGNORECASE)


def redact_url(text: str) -> str:
    """Returns a URL, or what a plugin gave for one, without its query, its fragment and its user."""
    # Written out twice: every record of a request comes through here.
    if 0 <= (place := text.find("?")) < len(text) - 1:
        text = f"{text[: place + 1]}…"
    if 0 <= (place := text.find("#")) < len(text) - 1:
        text = f"{text[: place + 1]}…"
    return _without_user(text)


def redact_urls(text: str) -> str:
    """Returns a text of any other kind with each URL in it redacted; a file named `a?b` keeps its name."""
    if "://" not in text:
        return text
    return _without_user(_QUERY.sub(r"\1\2…", text[: 2 * MAX_LENGTH]))


def _without_user(text: str) -> str:
    return _USER.sub("…@", text[: 2 * MAX_LENGTH]) if "@" in text else text
