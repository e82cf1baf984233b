"""Which headers of a request go out, and which follow it to another origin. Pure; knows no library and no policy.

Sources: RFC 9110 sections 5.5 and 7.6.1, RFC 9112 section 6, RFC 9113 section 3.1 (h2c).
"""

import re
from collections.abc import Iterable

from nyx_stream.capabilities.http.exchange import MOST_HEADERS, RawHeaders

_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_digits = re.compile(rb"[0-9]{1,18}").fullmatch

_REFUSED = frozenset(
    {b"upgrade", b"http2-settings", b"keep-alive", b"proxy-authorization", b"proxy-authenticate", b"proxy-connection",
     b"te", b"trailer"}
)  # fmt: skip
"""Headers of the connection and not of the request; Upgrade and HTTP2-Settings would leave HTTP/1.1."""

KEPT_ACROSS_ORIGINS = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-encoding", "content-language", "content-length",
     "content-type", "range", "transfer-encoding", "user-agent"}
)  # fmt: skip
"""What a redirect to another origin keeps: nothing that could be a credential."""


class BadHeaders(Exception):
    """The headers cannot be sent; the text says why."""


def checked(raw: Iterable[tuple[bytes, bytes]], host: bytes, most_bytes: int) -> RawHeaders:
    """The headers to send: `host` as the only Host, everything else as given. Raises `BadHeaders`."""
    kept: RawHeaders = [(b"Host", host)]
    framing: list[bytes] = []
    size = 0
    for name, value in raw:
        if type(name) is not bytes or type(value) is not bytes:
            raise BadHeaders("a header is not bytes")
        lower = name.lower()
        if lower == b"host":
            continue
        if not _name(name):
            raise BadHeaders("a header name holds a character that is not allowed there")
        if _control(value):
            raise BadHeaders(f"the value of header {name.decode('ascii')} holds a control character")
        if lower == b"accept-encoding":
            value = _decodable(value)
        elif lower in _CHECKS:
            _CHECKS[lower](lower, value)
            framing.append(lower)
        size += len(name) + len(value) + 4
        kept.append((name, value))
    if len(kept) > MOST_HEADERS or size > most_bytes:
        raise BadHeaders(f"more than {MOST_HEADERS} headers or {most_bytes} bytes of them")
    if framing.count(b"content-length") + framing.count(b"transfer-encoding") > 1:
        raise BadHeaders("more than one of Content-Length and Transfer-Encoding")
    return kept


def _decodable(value: bytes) -> bytes:
    # A coding that is not offered is not sent; the others cannot be taken off in bounded steps.
    if b"br" not in value and b"zstd" not in value and b"*" not in value:
        return value
    codings = [coding.strip() for coding in value.split(b",")]
    kept = [coding for coding in codings if coding.split(b";")[0].strip().lower() not in (b"br", b"zstd", b"*")]
    return b", ".join(kept) or b"identity"


def _refuse(name: bytes, _value: bytes) -> None:
    raise BadHeaders(f"header {name.decode('ascii')} belongs to the connection, not to a request")


def _check_connection(_name: bytes, value: bytes) -> None:
    if any(option.strip().lower() not in (b"keep-alive", b"close", b"") for option in value.split(b",")):
        raise BadHeaders("header connection may only say keep-alive or close")


def _check_length(_name: bytes, value: bytes) -> None:
    if not _digits(value):
        raise BadHeaders("header content-length is no number")


def _check_coding(_name: bytes, value: bytes) -> None:
    if value.strip().lower() != b"chunked":
        raise BadHeaders("header transfer-encoding may only say chunked")


_CHECKS = dict.fromkeys(_REFUSED, _refuse) | {
    b"connection": _check_connection,
    b"content-length": _check_length,
    b"transfer-encoding": _check_coding,
}
