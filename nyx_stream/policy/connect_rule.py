"""Rules for connecting.

The forms: `host`, `*.host`, `host:port`, `1.2.3.4`, `10.0.0.0/8`, `::1`, `[::1]:8080`, `[2001:db8::]/32`.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from nyx_stream.policy.hosts import HostError, address_number, canonical_address, canonical_host, is_address
from nyx_stream.policy.rule import RuleError, Source

_PORT = re.compile(r"[0-9]{1,5}")
_LENGTH = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True)
class ConnectRule:
    """One host pattern, address or network, and one port or all (`None`).

    `host` is canonical (see `hosts`); with `wildcard` it is the suffix below which every name matches, but not the
    suffix itself. `length` is the prefix length of a network, `None` for a name; a single address has 32 or 128.
    """

    host: str
    port: int | None = None
    wildcard: bool = False
    length: int | None = None
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, source: Source | None = None) -> Self:
        """Reads one rule; raises `RuleError` with the place of the fault."""
        if "://" in text:
            raise RuleError(text, "a connect rule names a host; rules with a scheme are request rules")
        if text != text.strip():
            raise RuleError(text, "white space around a rule")
        host, port_text, length_text = _split(text)
        port = parse_port(text, port_text) if port_text is not None else None
        if length_text is not None:
            return cls._network(text, host, length_text, source)
        wildcard, name = parse_host(text, host)
        length = (128 if ":" in name else 32) if is_address(name) else None
        return cls(name, port, wildcard, length, source)

    @classmethod
    def _network(cls, text: str, host: str, length_text: str, source: Source | None) -> Self:
        place = text.rfind("/") + 1
        try:
            address = canonical_address(host.strip("[]"))
        except HostError:
            raise RuleError(text, "a prefix length goes with an address only") from None
        version, number = address_number(address)
        if version == 4 and ":" in host:
            raise RuleError(text, "write an IPv4-mapped network as its IPv4 network")
        bits = 32 if version == 4 else 128
        if not _LENGTH.fullmatch(length_text) or int(length_text) > bits:
            raise RuleError(text, f"a prefix length is a number from 0 to {bits}", place)
        length = int(length_text)
        if number & ((1 << (bits - length)) - 1):
            raise RuleError(text, "the address has bits set below its prefix length", place)
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


def parse_host(text: str, host: str) -> tuple[bool, str]:
    """Returns (wildcard, canonical host) of the host part of a rule; raises `RuleError` placed inside `text`."""
    place = text.find(host) if host else 0
    wildcard = host.startswith("*.")
    name = host[2:] if wildcard else host
    if "*" in name:
        raise RuleError(
            text,
            "'*' may stand only as the whole first label, as in *.example.com; there is no rule for every host",
            place + host.index("*", 2 if wildcard else 0),
        )
    try:
        canonical = canonical_host(name)
    except HostError as error:
        raise RuleError(text, error.reason, place) from None
    if wildcard and is_address(canonical):
        raise RuleError(text, "a wildcard never matches an address", place)
    if wildcard and "." not in canonical:
        raise RuleError(text, f"*.{canonical} would cover a whole top-level domain", place)
    return wildcard, canonical


def parse_port(text: str, port_text: str) -> int:
    """Returns a port from 1 to 65535; raises `RuleError` placed inside `text`."""
    if not _PORT.fullmatch(port_text) or not 1 <= int(port_text) <= 65535:
        raise RuleError(text, "a port is a number from 1 to 65535", text.rfind(":") + 1)
    return int(port_text)


def _split(text: str) -> tuple[str, str | None, str | None]:
    """Splits into host, port and prefix length. A bare text with two colons or more is an IPv6 address, portless."""
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
            raise RuleError(text, "after the bracket only a port or a prefix length may stand", end + 1)
        return host, None, None
    host, slash, length = text.partition("/")
    if slash:
        return host, None, length
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port, None
    return text, None, None
