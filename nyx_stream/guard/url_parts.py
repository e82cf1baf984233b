"""What a URL says, read once into exact types. Everything that programs read in different ways is refused.

Knows no rule. A text that every reader takes as it stands is read here; any other by the same parser that `httpx` uses
for the request, and by a strict one beside it: where the two name different hosts, the URL is refused.
"""

import re
import sys
from dataclasses import dataclass
from typing import Protocol

from nyx_stream.policy.hosts import LONGEST_NAME, HostError, canonical_host
from nyx_stream.policy.request_rule import DEFAULT_PORTS
from nyx_stream.policy.url_path import LONGEST, has_broken_escape, normalise_path

# A URL that every reader takes as it stands: nothing in it is escaped, decoded, lower-cased or resolved. Such a host
# needs no IDNA and is no number; such a path has no dot segment, no empty segment and nothing encoded. What follows
# the last slash of a path may be empty.
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

LONGEST_URL = 64 * 1024
"""Characters of a URL that are looked at, query included; a longer one is refused."""


class UrlError(ValueError):
    """The URL cannot be decided on; the text of the error says why."""


class Url(Protocol):
    """The attributes of `httpx.URL` and `httpx2.URL` that are read, each once."""

    @property
    def raw_scheme(self) -> bytes: ...
    @property
    def raw_host(self) -> bytes: ...
    @property
    def raw_path(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...
    @property
    def userinfo(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class UrlParts:
    """Canonical parts. `path` is normalised; `target` is `path` and the query, as a request line has it."""

    scheme: str
    host: str
    port: int
    path: str
    target: bytes


def read_url(url: object) -> UrlParts:
    """Reads a `str`, an `httpx.URL` or an `httpx2.URL`, never a subclass of one, whose attributes could change.

    Raises:
        UrlError: the URL is refused; the text says why.
    """
    if type(url) is str:
        return _read_text(url)
    if is_url(url):
        return _read_object(url)  # type: ignore[arg-type]  # `is_url` looks at the exact type
    raise UrlError(f"a URL is a str or an httpx.URL, not {type(url).__name__}")


_URL_CLASSES: dict[type, bool] = {}


def is_url(url: object) -> bool:
    """Tells whether `url` is exactly a `URL` of `httpx` or `httpx2`; imports neither."""
    kind = type(url)
    return _URL_CLASSES.get(kind) or (kind.__name__ == "URL" and _is_url_class(kind))


def _is_url_class(kind: type) -> bool:
    modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    if any(module is not None and kind is getattr(module, "URL", None) for module in modules):
        _URL_CLASSES[kind] = True
        return True
    return False


def _read_text(text: str) -> UrlParts:
    # Most texts are plain, and reading one of those ourselves costs a seventh of what the parser of httpx takes.
    parts = _read_plain(text)
    return parts if parts is not None else _read_any(text)


def is_plain(text: str) -> bool:
    """Tells whether every reader takes a URL as it stands, so that none has to be asked."""
    return _read_plain(text) is not None


def _read_plain(text: str) -> UrlParts | None:
    plain = _PLAIN.fullmatch(text) if len(text) <= LONGEST else None
    if plain is None:
        return None
    scheme, host, port, path, query = plain.groups("")
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if number > 65535 or len(host) > LONGEST_NAME or "xn--" in host:
        return None
    path = path or "/"
    return UrlParts(scheme, host, number, path, f"{path}{query}".encode("ascii"))


def _read_any(text: str) -> UrlParts:
    import httpx  # 100 ms, and most hosts have it loaded by the time a request is checked

    if len(text) > LONGEST_URL:
        raise UrlError(f"the URL is longer than {LONGEST_URL} characters")
    # A browser strips the one and takes the other for a slash.
    if text != text.strip() or "\\" in text.partition("?")[0]:
        raise UrlError("white space around a URL and a backslash in it are refused: readers disagree on both")
    host = _strict_host(text)
    try:
        url = httpx.URL(text)
        raw_host = url.raw_host
    except (httpx.InvalidURL, ValueError) as error:
        raise UrlError(f"not a URL: {error}") from None
    parts = _read_object(url)
    if parts.host != host:
        raise UrlError(f"readers of this URL disagree on its host: {host} or {raw_host.decode('ascii', 'replace')}")
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
        raise UrlError("the URL's host and port cannot be told apart")
    return _host(parsed["host"])


def _read_object(url: Url) -> UrlParts:
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
    if not _TARGET.fullmatch(raw) or len(raw) > LONGEST_URL:
        raise UrlError("the path or query has characters that a request line cannot carry")
    before, mark, query = raw.partition(b"?")
    path = before.decode("ascii")
    if not path.startswith("/"):
        raise UrlError("the path does not begin with a slash")
    if len(path) > LONGEST:
        raise UrlError(f"the path is longer than {LONGEST} characters")
    if has_broken_escape(path):
        raise UrlError("a per cent sign in the path begins no escape")
    path = normalise_path(path)
    return path, path.encode("ascii") + mark + query
