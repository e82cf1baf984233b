"""Rules for requests: `[METHODS ]scheme://host[:port][/path]`, for example `GET,HEAD https://api.met.no/v1/**`."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self
from urllib.parse import quote

from nyx_stream.policy.connect_rule import parse_host, parse_port
from nyx_stream.policy.hosts import is_address
from nyx_stream.policy.rule import RuleError, Source
from nyx_stream.policy.url_path import PathPattern, has_broken_escape, has_encoded_separator, normalise_path

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""Schemes that a rule may name, with their default ports (RFC 9110, section 4.2; RFC 6455, section 3)."""

DEFAULT_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What a rule without methods allows."""

NEVER_METHODS = frozenset({"CONNECT", "TRACE"})
"""Methods that no rule can allow: one opens a tunnel, the other echoes credentials."""

METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""A method: a token (RFC 9110, section 9.1) of a sane length."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CIDR_TAIL = re.compile(r"/[0-9]{1,3}")
# What may stand in a path as it is: pchar of RFC 3986, the separator, and the per cent sign of an escape.
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"


@dataclass(frozen=True)
class RequestRule:
    """Methods (`None`: the default set), a scheme, a host pattern, a port, and a path pattern (`None`: every path)."""

    scheme: str
    host: str
    port: int
    wildcard: bool = False
    path: PathPattern | None = None
    methods: frozenset[str] | None = None
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, source: Source | None = None) -> Self:
        """Reads one rule; raises `RuleError` with the place of the fault."""
        methods_text, space, url = text.rpartition(" ")
        if text != text.strip() or " " in methods_text.strip(" "):
            raise RuleError(text, "one space between methods and URL, none elsewhere")
        methods = _parse_methods(text, methods_text) if space else None
        scheme, separator, rest = url.partition("://")
        if not separator or not _SCHEME.fullmatch(scheme):
            raise RuleError(text, "a request rule has a scheme, as in https://example.com", len(text) - len(url))
        if scheme.lower() not in DEFAULT_PORTS:
            raise RuleError(text, f"the scheme is one of {', '.join(DEFAULT_PORTS)}", len(text) - len(url))
        scheme = scheme.lower()
        authority, path = _split_authority(rest)
        host, port = _parse_authority(text, authority, scheme)
        wildcard, name = parse_host(text, host)
        if is_address(name) and _CIDR_TAIL.fullmatch(path):
            raise RuleError(text, "a request rule takes one host; allow a network by a connect rule", text.rfind("/"))
        return cls(scheme, name, port, wildcard, _parse_path(text, path), methods, source)

    def allows_method(self, method: str) -> bool:
        """Tells whether the rule, as an allow rule, covers a method in upper case."""
        return method in (DEFAULT_METHODS if self.methods is None else self.methods)

    @cached_property
    def origin(self) -> str:
        """Scheme, host pattern and port, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        star = "*." if self.wildcard else ""
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{star}{host}{port}"

    @cached_property
    def text(self) -> str:
        """The rule as `parse` reads it back."""
        methods = "" if self.methods is None else ",".join(sorted(self.methods)) + " "
        return f"{methods}{self.origin}{'' if self.path is None else self.path.text}"

    def __str__(self) -> str:
        return self.text


def _parse_methods(text: str, methods_text: str) -> frozenset[str]:
    methods = methods_text.split(",")
    for method in methods:
        if not METHOD.fullmatch(method):
            raise RuleError(text, "methods are names with commas between them, as in GET,HEAD")
        if method.upper() in NEVER_METHODS:
            raise RuleError(text, f"{method.upper()} can never be allowed", text.index(method))
    return frozenset(method.upper() for method in methods)


def _split_authority(rest: str) -> tuple[str, str]:
    end = min((place for place in (rest.find(c) for c in "/?#\\") if place >= 0), default=len(rest))
    return rest[:end], rest[end:]


def _parse_authority(text: str, authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise RuleError(text, "a rule has no user name or password", text.index("@"))
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    elif not port:
        raise RuleError(text, "a port is a number from 1 to 65535", text.index(authority) + len(authority))
    if ":" in host and not host.startswith("["):
        raise RuleError(text, "an IPv6 address in a URL stands in brackets", text.index(authority))
    return host, parse_port(text[: text.index(authority) + len(authority)], port) if port else DEFAULT_PORTS[scheme]


def _parse_path(text: str, path: str) -> PathPattern | None:
    if not path:
        return None
    place = text.rindex(path)
    for character in "?#":
        if character in path:
            raise RuleError(text, "a rule has no query and no fragment", place + path.index(character))
    if has_encoded_separator(path):
        raise RuleError(text, "an encoded slash or a backslash never matches a path rule", place)
    if has_broken_escape(path):
        raise RuleError(text, "'%' begins an escape of two hexadecimal digits", place + path.index("%"))
    try:
        quoted = quote(path, safe=_PATH_SAFE)
    except UnicodeEncodeError:
        raise RuleError(text, "the path is not encodable as UTF-8", place) from None
    if any(not c.isprintable() for c in path):
        raise RuleError(text, "control characters cannot stand in a path", place)
    return PathPattern(re.sub(r"\*{3,}", "**", normalise_path(quoted)))
