"""Parses a URL once into exact types, and refuses what parsers read differently.

A plain text, which every parser reads alike, is matched by one pattern. Any other text is parsed twice: by the parser
that `httpx` uses for the request, and by a strict one. If the two disagree on the host, the URL is refused.
"""

import re
import sys
from dataclasses import dataclass
from typing import Any

from nyx_stream.policy.hosts import MAX_NAME_LENGTH, HostError, canonical_host
from nyx_stream.policy.rules import DEFAULT_PORTS
from nyx_stream.policy.url_path import MAX_PATH_LENGTH, has_broken_escape, normalise_path

# A URL that every parser reads alike: nothing in it needs to be escaped, decoded, lower-cased or resolved. The host
# needs no IDNA and isn't numeric; the path has no dot segment, no empty segment but the last, and nothing encoded.
_PLAIN = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>(?:[a-z0-9_][a-z0-9_-]{0,62}(?<!-)\.)+[a-z]{2,63})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/(?!\.{0,2}(?:[/?]|$))[A-Za-z0-9._~@:!$&()*+,;=-]+)*/?)"
    r"(?P<query>\?[A-Za-z0-9._~@:$&()*+,;=/-]+)?"
)
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]*)")
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_TARGET = re.compile(rb"[\x21-\x7e]*")

MAX_URL_LENGTH = 64 * 1024
"""Characters of a URL, query included; a longer one is refused."""


class UrlError(ValueError):
    """The URL is refused; the text of the error says why."""


@dataclass(frozen=True, slots=True)
class UrlParts:
    """Canonical parts. `path` is normalised; `target` is `path` and the query, as in a request line."""

    scheme: str
    host: str
    port: int
    path: str
    target: bytes


def read_url(url: object) -> UrlParts:
    """Parses a `str`, an `httpx.URL` or an `httpx2.URL`. Subclasses are refused, because their attributes could change.

    Raises:
        UrlError: the URL is refused; the text says why.
    """
    if type(url) is str:
        # Most texts are plain, and the pattern costs a seventh of what the parser of httpx costs.
        return read_plain(url) or read_any(url)
    if is_url(url):
        return _read_object(url)
    raise UrlError(f"a URL is a str or an httpx.URL, not {type(url).__name__}")


_URL_CLASSES: dict[type, bool] = {}


def is_url(url: object) -> bool:
    """Returns whether `url` is exactly a `URL` of `httpx` or `httpx2`; imports neither."""
    kind = type(url)
    return _URL_CLASSES.get(kind) or (kind.__name__ == "URL" and _is_url_class(kind))


def _is_url_class(kind: type) -> bool:
    modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    if any(module is not None and kind is getattr(module, "URL", None) for module in modules):
        _URL_CLASSES[kind] = True
        return True
    return False


def read_plain(text: str) -> UrlParts | None:
    """Parses a plain URL; returns `None` for any other text."""
    plain = _PLAIN.fullmatch(text) if len(text) <= MAX_PATH_LENGTH else None
    if plain is None:
        return None
    scheme, host, port, path, query = plain.groups("")
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if number > 65535 or len(host) > MAX_NAME_LENGTH or "xn--" in host:
        return None
    path = path or "/"
    return UrlParts(scheme, host, number, path, f"{path}{query}".encode("ascii"))


def read_any(text: str) -> UrlParts:
    """Parses any URL by two parsers. Raises `UrlError`."""
    import httpx  # 100 ms; most hosts have imported it before they check a request

    if len(text) > MAX_URL_LENGTH:
        raise UrlError(f"the URL is longer than {MAX_URL_LENGTH} characters")
    # A browser strips white space and reads a backslash as a slash.
    if text != text.strip() or "\\" in text.partition("?")[0]:
        raise UrlError("white space around a URL and a backslash in it are refused: parsers disagree on both")
    host = _strict_host(text)
    try:
        url = httpx.URL(text)
        raw_host = url.raw_host
    except (httpx.InvalidURL, ValueError) as error:
        raise UrlError(f"not a URL: {error}") from None
    parts = _read_object(url)
    if parts.host != host:
        raise UrlError(f"parsers disagree on the host of this URL: {host} or {raw_host.decode('ascii', 'replace')}")
    return parts


def _strict_host(text: str) -> str:
    match = _AUTHORITY.match(text)
    if match is None:
        raise UrlError("the URL has no scheme and host")
    authority = match["authority"]
    if "@" in authority:
        raise UrlError("a user name or password in a URL is refused")
    parsed = _HOST_PORT.fullmatch(authority)
    if parsed is None:
        raise UrlError("the URL has no valid host and port")
    return _host(parsed["host"])


def _read_object(url: Any) -> UrlParts:
    # Each attribute is read once.
    raw_scheme, raw_host, raw_path, port, userinfo = url.raw_scheme, url.raw_host, url.raw_path, url.port, url.userinfo
    if not (type(raw_scheme) is type(raw_host) is type(raw_path) is type(userinfo) is bytes):
        raise UrlError("the URL's parts are not plain bytes")
    if userinfo:
        raise UrlError("a user name or password in a URL is refused")
    scheme = raw_scheme.decode("latin-1").lower()
    default = DEFAULT_PORTS.get(scheme)
    if default is None:
        raise UrlError(f"the scheme is not one of {', '.join(DEFAULT_PORTS)}")
    number = default if port is None else port
    if type(number) is not int or not 1 <= number <= 65535:
        raise UrlError("a port is a number from 1 to 65535")
    host = _host(raw_host.decode("latin-1"))
    path, target = _path(raw_path)
    return UrlParts(scheme, host, number, path, target)


def _host(text: str) -> str:
    try:
        return canonical_host(text)
    except HostError as error:
        raise UrlError(error.reason) from None


def _path(raw: bytes) -> tuple[str, bytes]:
    if not _TARGET.fullmatch(raw) or len(raw) > MAX_URL_LENGTH:
        raise UrlError("the path or query has characters that a request line must not contain")
    before, mark, query = raw.partition(b"?")
    path = before.decode("ascii")
    if not path.startswith("/"):
        raise UrlError("the path does not begin with a slash")
    if len(path) > MAX_PATH_LENGTH:
        raise UrlError(f"the path is longer than {MAX_PATH_LENGTH} characters")
    if has_broken_escape(path):
        raise UrlError("a percent sign in the path does not begin an escape")
    path = normalise_path(path)
    return path, path.encode("ascii") + mark + query
