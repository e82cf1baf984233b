"""The three kinds of rule, parsed from text once: for connections, for requests, for paths.

Connect rules: `host`, `*.host`, `host:port`, `1.2.3.4`, `10.0.0.0/8`, `::1`, `[::1]:8080`, `[2001:db8::]/32`.
Request rules: `[METHODS ]scheme://host[:port][/path]`, for example `GET,HEAD https://api.met.no/v1/**`.
Path rules: an absolute prefix, or one below `$DATA`, `$PLUGIN` or `./`, and a mode.

Every parser raises `RuleError` with the offset of the fault. The `text` of a rule parses back to an equal rule.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal, Self, TypeAlias
from urllib.parse import quote

from nyx_core.beneath.text import Flavour, components, fold, is_absolute, normalise, refuse_reason
from nyx_stream.policy.hosts import HostError, address_number, canonical_address, canonical_host, is_address
from nyx_stream.policy.url_path import PathPattern, has_broken_escape, has_encoded_separator, normalise_path

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""Schemes that a rule may name, with their default ports (RFC 9110, section 4.2; RFC 6455, section 3)."""

DEFAULT_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What an allow rule without methods covers."""

NEVER_METHODS = frozenset({"CONNECT", "TRACE"})
"""Methods that no rule can allow: CONNECT opens a tunnel, TRACE echoes credentials."""

METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""A method: a token (RFC 9110, section 9.1) of at most 64 characters."""

_PORT = re.compile(r"[0-9]{1,5}")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CIDR_SUFFIX = re.compile(r"/[0-9]{1,3}")
# The characters that a path may contain unescaped: pchar of RFC 3986, the separator, and the percent sign of an escape.
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"

Mode = Literal["r", "rw"]
"""`r`: read, list, stat. `rw`: also create, write, rename, remove."""

Places = Mapping[str, str]
"""Absolute directories by variable name: `{"$DATA": "/var/lib/app/weather", "$PLUGIN": "/opt/plugins/weather"}`."""

NO_PLACES: Places = MappingProxyType({})
VARIABLES = ("$DATA", "$PLUGIN")


class RuleError(ValueError):
    """The text of a rule is wrong. `offset` is the index of the fault in `text`."""

    def __init__(self, text: str, reason: str, offset: int = 0) -> None:
        self.text = text
        self.reason = reason
        self.offset = offset
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule was written: a file or the name of a builder call, a line from 1, and the reason given there."""

    where: str
    line: int | None = None
    why: str | None = None

    def __str__(self) -> str:
        return self.where if self.line is None else f"{self.where}:{self.line}"


@dataclass(frozen=True)
class ConnectRule:
    """One host pattern, address or network, and one port or all (`None`).

    `host` is canonical (see `hosts`). With `wildcard` it is a suffix: every name below it matches, the suffix itself
    doesn't. `length` is the prefix length of a network, `None` for a name; a single address has 32 or 128.
    """

    host: str
    port: int | None = None
    wildcard: bool = False
    length: int | None = None
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, source: Source | None = None) -> Self:
        """Parses one rule. Raises `RuleError`."""
        if "://" in text:
            raise RuleError(text, "a connect rule names a host; rules with a scheme are request rules")
        if text != text.strip():
            raise RuleError(text, "white space around a rule")
        host, port_text, length_text = _split_endpoint(text)
        port = _parse_port(text, port_text) if port_text is not None else None
        if length_text is not None:
            return cls._network(text, host, length_text, source)
        wildcard, name = _parse_host(text, host)
        return cls(name, port, wildcard, _address_length(name), source)

    @classmethod
    def of(cls, rule: "RequestRule") -> Self:
        """Returns the connect rule for the origins of a request rule."""
        return cls(rule.host, rule.port, rule.wildcard, _address_length(rule.host))

    @classmethod
    def _network(cls, text: str, host: str, length_text: str, source: Source | None) -> Self:
        offset = text.rfind("/") + 1
        try:
            address = canonical_address(host.strip("[]"))
        except HostError:
            raise RuleError(text, "only an address may have a prefix length") from None
        version, number = address_number(address)
        if version == 4 and ":" in host:
            raise RuleError(text, "write an IPv4-mapped network as its IPv4 network")
        bits = 32 if version == 4 else 128
        if not _PREFIX_LENGTH.fullmatch(length_text) or int(length_text) > bits:
            raise RuleError(text, f"a prefix length is a number from 0 to {bits}", offset)
        length = int(length_text)
        if number & ((1 << (bits - length)) - 1):
            raise RuleError(text, "the address has bits set below its prefix length", offset)
        return cls(address, None, False, length, source)

    @cached_property
    def text(self) -> str:
        """The rule as `parse` reads it back."""
        host = f"*.{self.host}" if self.wildcard else self.host
        full = 128 if ":" in host else 32
        if self.length is not None and self.length != full:
            return f"[{host}]/{self.length}" if ":" in host else f"{host}/{self.length}"
        if self.port is None:
            return host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.text


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
        """Parses one rule. Raises `RuleError`."""
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
        end = min((index for index in map(rest.find, "/?#\\") if index >= 0), default=len(rest))
        path = rest[end:]
        host, port = _parse_authority(text, rest[:end], scheme)
        wildcard, name = _parse_host(text, host)
        if is_address(name) and _CIDR_SUFFIX.fullmatch(path):
            reason = "a request rule takes a single host; use a connect rule to allow a network"
            raise RuleError(text, reason, text.rfind("/"))
        return cls(scheme, name, port, wildcard, _parse_path(text, path), methods, source)

    @property
    def allowed_methods(self) -> frozenset[str]:
        """The methods that the rule covers as an allow rule."""
        return DEFAULT_METHODS if self.methods is None else self.methods

    @cached_property
    def text(self) -> str:
        """The rule as `parse` reads it back, without the scheme's default port."""
        methods = "" if self.methods is None else ",".join(sorted(self.methods)) + " "
        host = f"[{self.host}]" if ":" in self.host else self.host
        star = "*." if self.wildcard else ""
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{methods}{self.scheme}://{star}{host}{port}{'' if self.path is None else self.path.text}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PathRule:
    """A prefix covers itself and everything below it. It is absolute and normalised, or begins with a variable."""

    prefix: str
    mode: Mode = "r"
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, mode: str = "r", source: Source | None = None) -> Self:
        """Parses one prefix. Raises `RuleError`. Every platform reads both POSIX and Windows paths."""
        if mode not in ("r", "rw"):
            raise RuleError(mode, 'a mode is "r" or "rw"')
        checked: Mode = "r" if mode == "r" else "rw"
        flavour: Flavour = "windows" if is_absolute(text, "windows") else "posix"
        reason = refuse_reason(text, flavour)
        if reason is not None:
            raise RuleError(text, reason)
        if ".." in components(text, flavour):
            raise RuleError(text, "'..' isn't allowed in a prefix", text.index(".."))
        if is_absolute(text, flavour):
            return cls(normalise(text, flavour), checked, source)
        first, *rest = text.split("/")
        variable = "$PLUGIN" if first == "." else first
        if variable not in VARIABLES:
            raise RuleError(text, "a prefix is absolute, or begins with $DATA, $PLUGIN or ./")
        return cls("/".join([variable, *(part for part in rest if part not in ("", "."))]), checked, source)

    def bind(self, places: Places) -> Self | None:
        """Returns the rule with its variable replaced, or `None` if `places` doesn't have the variable."""
        variable, _, rest = self.prefix.partition("/")
        if variable not in VARIABLES:
            return self
        if variable not in places:
            return None
        base = places[variable]
        return replace(self, prefix=f"{base.rstrip('/')}/{rest}" if rest else base)

    @property
    def text(self) -> str:
        """The prefix; `parse` reads it back with `mode`."""
        return self.prefix

    def __str__(self) -> str:
        return self.prefix


Rule: TypeAlias = ConnectRule | RequestRule | PathRule


def bind_all(rules: Iterable[PathRule], places: Places) -> tuple[PathRule, ...]:
    """Returns the rules with their variables replaced. Drops rules whose variable `places` doesn't have."""
    return tuple(bound for rule in rules if (bound := rule.bind(places)) is not None)


def path_key(path: str, flavour: Flavour) -> str:
    r"""Returns the text by which absolute, normal paths are compared: folded, a root without its separator."""
    return fold(path.rstrip("\\" if flavour == "windows" else "/"), flavour)


def parse_env(name: str, source: Source | None = None) -> str:  # noqa: ARG001  # the signature of every rule's parser
    """Returns the name of an environment variable. Raises `RuleError`."""
    if not name.isascii() or not name.isidentifier():
        raise RuleError(name, "the name of an environment variable has letters, digits and underscores")
    return name


def _address_length(host: str) -> int | None:
    return (128 if ":" in host else 32) if is_address(host) else None


def _parse_host(text: str, host: str) -> tuple[bool, str]:
    """Returns (wildcard, canonical host) of the host part of a rule."""
    offset = text.find(host) if host else 0
    wildcard = host.startswith("*.")
    name = host[2:] if wildcard else host
    if "*" in name:
        raise RuleError(
            text,
            "'*' is allowed only as the whole first label, as in *.example.com; no rule can allow every host",
            offset + host.index("*", 2 if wildcard else 0),
        )
    try:
        canonical = canonical_host(name)
    except HostError as error:
        raise RuleError(text, error.reason, offset) from None
    if wildcard and is_address(canonical):
        raise RuleError(text, "a wildcard never matches an address", offset)
    if wildcard and "." not in canonical:
        raise RuleError(text, f"*.{canonical} would cover a whole top-level domain", offset)
    return wildcard, canonical


def _parse_port(text: str, port_text: str) -> int:
    if not _PORT.fullmatch(port_text) or not 1 <= int(port_text) <= 65535:
        raise RuleError(text, "a port is a number from 1 to 65535", text.rfind(":") + 1)
    return int(port_text)


def _split_endpoint(text: str) -> tuple[str, str | None, str | None]:
    """Splits into host, port and prefix length. Text with two or more colons and no bracket is an IPv6 address."""
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            raise RuleError(text, "a bracket without its partner")
        host, rest = text[: end + 1], text[end + 1 :]
        if rest.startswith(":"):
            return host, rest[1:], None
        if rest.startswith("/"):
            return host, None, rest[1:]
        if rest:
            raise RuleError(text, "only a port or a prefix length may follow the bracket", end + 1)
        return host, None, None
    host, slash, length = text.partition("/")
    if slash:
        return host, None, length
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port, None
    return text, None, None


def _parse_methods(text: str, methods_text: str) -> frozenset[str]:
    methods = methods_text.split(",")
    for method in methods:
        if not METHOD.fullmatch(method):
            raise RuleError(text, "methods are names separated by commas, as in GET,HEAD")
        if method.upper() in NEVER_METHODS:
            raise RuleError(text, f"{method.upper()} can never be allowed", text.index(method))
    return frozenset(method.upper() for method in methods)


def _parse_authority(text: str, authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise RuleError(text, "a rule can't have a user name or password", text.index("@"))
    end = text.index(authority) + len(authority)
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    elif not port:
        raise RuleError(text, "a port is a number from 1 to 65535", end)
    if ":" in host and not host.startswith("["):
        raise RuleError(text, "write an IPv6 address in a URL in brackets", text.index(authority))
    return host, _parse_port(text[:end], port) if port else DEFAULT_PORTS[scheme]


def _parse_path(text: str, path: str) -> PathPattern | None:
    if not path:
        return None
    offset = text.rindex(path)
    for character in "?#":
        if character in path:
            raise RuleError(text, "a rule can't have a query or a fragment", offset + path.index(character))
    if has_encoded_separator(path):
        raise RuleError(text, "an encoded slash or a backslash never matches a path rule", offset)
    if has_broken_escape(path):
        raise RuleError(text, "'%' begins an escape of two hexadecimal digits", offset + path.index("%"))
    try:
        quoted = quote(path, safe=_PATH_SAFE)
    except UnicodeEncodeError:
        raise RuleError(text, "the path can't be encoded as UTF-8", offset) from None
    if any(not c.isprintable() for c in path):
        raise RuleError(text, "control characters aren't allowed in a path", offset)
    return PathPattern(re.sub(r"\*{3,}", "**", normalise_path(quoted)))
