"""Which addresses are not globally reachable.

Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890, RFC 8190 and later registrations, read
in 2026), the IPv6 unicast allocation (only 2000::/3 is global unicast), and one cloud platform address in public space.
Nyx has its own table because `ipaddress.is_global` differs between versions of Python and treats translated addresses
(NAT64, 6to4, Teredo, IPv4-compatible) as public.
"""

from bisect import bisect_right
from ipaddress import ip_network

_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared (carrier-grade NAT)",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's platform address",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.0.9/32": None,  # Port Control Protocol anycast, RFC 7723
    "192.0.0.10/32": None,  # TURN anycast, RFC 8155
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "former 6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_V6 = {
    "::/0": "not global unicast",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4-compatible",
    "64:ff9b:1::/48": "local NAT64",
    "100::/64": "discard-only",
    "2000::/3": None,
    "2001::/23": "protocol assignments",
    "2001::/32": "Teredo",
    "2001:1::1/128": None,  # Port Control Protocol anycast, RFC 7723
    "2001:1::2/128": None,  # TURN anycast, RFC 8155
    "2001:1::3/128": None,  # DNS-SD service registration anycast, RFC 9665
    "2001:2::/48": "benchmarking",
    "2001:3::/32": None,  # AMT, RFC 7450
    "2001:4:112::/48": None,  # AS112, RFC 7535
    "2001:20::/28": None,  # ORCHIDv2, RFC 7343
    "2001:30::/28": None,  # drone remote identification, RFC 9374
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "fec0::/10": "former site-local",
    "ff00::/8": "multicast",
}
_NAT64 = 0x64FF9B << 96
_LOW32 = 0xFFFF_FFFF


def why_special(version: int, number: int) -> str | None:
    """Returns the kind of a special address, such as `"loopback"`, or `None` for a globally reachable one.

    An address in 64:ff9b::/96 (NAT64) has the kind of the IPv4 address embedded in it.
    """
    inner = embedded_ipv4(version, number)
    if inner is not None:
        return why_special(4, inner)
    starts, reasons = _RANGES[version]
    return reasons[bisect_right(starts, number) - 1]


def embedded_ipv4(version: int, number: int) -> int | None:
    """Returns the IPv4 address embedded in a NAT64 address (RFC 6052, section 2.1), or `None`."""
    return number & _LOW32 if version == 6 and number & ~_LOW32 == _NAT64 else None


def is_loopback(version: int, number: int) -> bool:
    """Returns whether an address is in 127.0.0.0/8 or is ::1."""
    return number == 1 if version == 6 else number >> 24 == 127


def _ranges(table: dict[str, str | None]) -> tuple[list[int], list[str | None]]:
    """Cuts nested networks into ranges that don't overlap; returns their starts, and the kind of each."""
    kinds: dict[int, str | None] = {0: None}
    # A wide network comes first, and each one that is nested in it cuts a range out of it.
    for network, why in sorted(((ip_network(text), why) for text, why in table.items()), key=lambda n: n[0].prefixlen):
        first, after = int(network[0]), int(network[-1]) + 1
        kinds[after] = kinds.get(after, kinds[max(start for start in kinds if start <= after)])
        kinds[first] = why
    starts = sorted(kinds)
    return starts, [kinds[start] for start in starts]


_RANGES = {4: _ranges(_V4), 6: _ranges(_V6)}
