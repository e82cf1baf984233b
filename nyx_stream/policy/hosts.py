"""Host names and addresses in one canonical spelling.

A canonical host is one of
  - a lower-case ASCII name: labels of letters, digits, hyphen and underscore (RFC 1123, plus the underscore that real
    zones use), A-labels checked against IDNA 2008 (RFC 5891), at most 253 characters, no trailing dot;
  - an IPv4 address as a dotted quad without leading zeros;
  - an IPv6 address as RFC 5952 writes it, without brackets; an IPv4-mapped address becomes its IPv4 address.
Everything else is refused and never repaired: two parsers that repair differently reach different hosts.
"""

import ipaddress
import re

import idna

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# Matches nearly every host: already canonical, and not numeric, since the last label consists of letters.
_PLAIN = re.compile(r"(?:[a-z0-9_][a-z0-9_-]{0,62}(?<!-)\.)+[a-z]{2,63}")
_QUAD = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
# What the URL standard calls "ends in a number": parsers read such a host as an IPv4 address or refuse it.
_NUMERIC_END = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$")
_MAPPED = 0xFFFF << 32

MAX_NAME_LENGTH = 253
"""Characters of a name in its textual form (RFC 1035, section 2.3.4)."""


class HostError(ValueError):
    """`host` is not a valid host name or address; `reason` says why."""

    def __init__(self, host: str, reason: str) -> None:
        self.host = host
        self.reason = reason
        super().__init__(reason)


def canonical_host(text: str) -> str:
    """Returns the canonical spelling of a name or an address. An IPv6 address may have brackets.

    Raises:
        HostError: the text is not a host, or parsers disagree about its spelling.
    """
    if _PLAIN.fullmatch(text) and len(text) <= MAX_NAME_LENGTH and "xn--" not in text:
        return text
    if text.startswith("["):
        if not text.endswith("]"):
            raise HostError(text, "a bracket without its partner")
        return _ipv6(text, text[1:-1])
    if ":" in text:
        return _ipv6(text, text)
    name = text if text.isascii() else _to_ascii(text)
    name = name.lower()
    if _QUAD.fullmatch(name):
        return name
    name = name.removesuffix(".")
    if not _NAME.fullmatch(name):
        raise HostError(text, _name_fault(name))
    if len(name) > MAX_NAME_LENGTH:
        raise HostError(text, f"longer than {MAX_NAME_LENGTH} characters")
    if _NUMERIC_END.search(name):
        raise HostError(text, "a numeric host must be a dotted quad such as 192.0.2.1")
    if "xn--" in name:
        _check_a_labels(text, name)
    return name


def canonical_address(text: str) -> str:
    """Returns the canonical spelling of an IP address, IPv4-mapped as IPv4; raises `HostError` for anything else."""
    if _QUAD.fullmatch(text):
        return text
    return _ipv6(text, text)


def is_address(host: str) -> bool:
    """Returns whether a canonical host is an address. A canonical name never ends in a label of digits alone."""
    return ":" in host or (host[-1] <= "9" and host[host.rfind(".") + 1 :].isdigit())


def address_number(host: str) -> tuple[int, int]:
    """Returns (IP version, value) of a canonical address."""
    if ":" in host:
        return 6, int(ipaddress.IPv6Address(host))
    a, b, c, d = host.split(".")
    return 4, int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def _ipv6(text: str, inner: str) -> str:
    if "%" in inner:
        raise HostError(text, "a zone id is refused")
    try:
        address = ipaddress.IPv6Address(inner)
    except ValueError:
        raise HostError(text, "not an IPv6 address") from None
    number = int(address)
    if number >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(number ^ _MAPPED))
    return address.compressed


def _to_ascii(text: str) -> str:
    lowered = text.lower()
    # Lower-casing is the only mapping applied. It turns KELVIN SIGN into the letter k, so that is refused, as other
    # compatibility characters are.
    if any(a < "\x80" and b >= "\x80" for a, b in zip(lowered, text, strict=False)):
        raise HostError(text, "a compatibility character of an ASCII letter")
    labels = lowered.split(".")
    try:
        # Label by label, because `idna.encode` treats ideographic full stops as dots.
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels)
    except UnicodeError as error:
        raise HostError(text, f"not encodable by IDNA 2008: {error}") from None


def _check_a_labels(text: str, name: str) -> None:
    for label in name.split("."):
        if label.startswith("xn--"):
            try:
                faithful = idna.alabel(idna.ulabel(label)).decode("ascii") == label
            except UnicodeError:
                faithful = False
            if not faithful:
                raise HostError(text, f"{label} isn't a valid A-label of IDNA 2008")


def _name_fault(name: str) -> str:
    if not name:
        return "empty host"
    if any(not label for label in name.split(".")):
        return "an empty label"
    bad = re.search(r"[^a-z0-9_.-]", name)
    if bad:
        return f"character {bad.group()!r} isn't allowed in a host"
    if any(len(label) > 63 for label in name.split(".")):
        return "a label longer than 63 characters"
    return "a label begins or ends with a hyphen"
