"""Which headers of a request are sent, and which redirects may be followed with which of them. Pure functions.

Sources: RFC 9110 sections 5.5 and 7.6.1, RFC 9112 section 6, RFC 9113 section 3.1 (h2c).
"""

import re
from collections.abc import Iterable

from nyx_stream.capabilities.http.exchange import MAX_HEADERS, RequestRefused
from nyx_stream.capabilities.http.service import RawHeaders

_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_digits = re.compile(rb"[0-9]{1,18}").fullmatch

_REFUSED = frozenset(
    {b"upgrade", b"http2-settings", b"keep-alive", b"proxy-authorization", b"proxy-authenticate", b"proxy-connection",
     b"te", b"trailer"}
)  # fmt: skip
"""Headers that belong to the connection; Upgrade and HTTP2-Settings would leave HTTP/1.1."""

KEPT_ACROSS_ORIGINS = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-encoding", "content-language", "content-length",
     "content-type", "range", "transfer-encoding", "user-agent"}
)  # fmt: skip
"""What a redirect to another origin keeps: nothing that could be a credential."""


_PLAIN_CONNECTION = (b"keep-alive", b"close")
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]").search
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):").match


def check_headers(raw: Iterable[tuple[bytes, bytes]], host: bytes, max_bytes: int) -> RawHeaders:
    """Returns the headers to send: `host` as the only Host, all others as given. Raises `RequestRefused`."""
    kept: RawHeaders = [(b"Host", host)]
    framing: list[bytes] = []
    size = 0
    for name, value in raw:
        if type(name) is not bytes or type(value) is not bytes:
            raise RequestRefused("a header isn't bytes")
        lower = name.lower()
        if lower == b"host":
            continue
        if not _name(name):
            raise RequestRefused("a header name holds a character that isn't allowed there")
        if _control(value):
            raise RequestRefused(f"the value of header {name.decode('ascii')} holds a control character")
        if lower == b"accept-encoding":
            if b"br" in value or b"zstd" in value or b"*" in value:
                value = _decodable(value)
        elif lower == b"connection" and value in _PLAIN_CONNECTION:
            pass
        elif lower in _CHECKS:
            _CHECKS[lower](lower, value)
            framing.append(lower)
        size += len(name) + len(value) + 4
        kept.append((name, value))
    if len(kept) > MAX_HEADERS or size > max_bytes:
        raise RequestRefused(f"more than {MAX_HEADERS} headers or {max_bytes} bytes of them")
    if framing.count(b"content-length") + framing.count(b"transfer-encoding") > 1:
        raise RequestRefused("more than one of Content-Length and Transfer-Encoding")
    return kept


def _decodable(value: bytes) -> bytes:
    # These codings can't be decoded in bounded steps; a server doesn't use what isn't offered.
    codings = [coding.strip() for coding in value.split(b",")]
    kept = [coding for coding in codings if coding.split(b";")[0].strip().lower() not in (b"br", b"zstd", b"*")]
    return b", ".join(kept) or b"identity"


def _refuse(name: bytes, _value: bytes) -> None:
    raise RequestRefused(f"header {name.decode('ascii')} belongs to the connection, not to a request")


def _check_connection(_name: bytes, value: bytes) -> None:
    if any(option.strip().lower() not in (b"keep-alive", b"close", b"") for option in value.split(b",")):
        raise RequestRefused("header connection may only say keep-alive or close")


def _check_length(_name: bytes, value: bytes) -> None:
    if not _digits(value):
        raise RequestRefused("header content-length isn't a number")


def _check_coding(_name: bytes, value: bytes) -> None:
    if value.strip().lower() != b"chunked":
        raise RequestRefused("header transfer-encoding may only say chunked")


_CHECKS = dict.fromkeys(_REFUSED, _refuse) | {
    b"connection": _check_connection,
    b"content-length": _check_length,
    b"transfer-encoding": _check_coding,
}


def why_not_follow(location: str, scheme: str) -> str | None:
    """Says why a response to a `scheme` request may not redirect its client to `location`; `None` if it may.

    Only http to https changes the scheme. A value that two parsers could read as two hosts is refused. Where a
    redirect leads is then decided like any request.
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
