"""Connect rules, compiled: the cost of a look-up depends on the labels of the host, not on the number of rules."""

from collections.abc import Iterable
from typing import TypeVar

from nyx_stream.guard.special_addresses import embedded_ipv4
from nyx_stream.policy import ConnectRule
from nyx_stream.policy.hosts import address_number, is_address

_Key = TypeVar("_Key", str, int)

# The rule for every port, or the rules by port, `None` among them for every other port.
_Ports = ConnectRule | dict[int | None, ConnectRule]


class HostTable:
    """Exact names in a hash, wildcards by label walk, networks by one hash per prefix length in use."""

    __slots__ = ("_names", "_networks", "_suffixes", "_zones")

    def __init__(self, rules: Iterable[ConnectRule]) -> None:
        self._names: dict[str, _Ports] = {}
        self._suffixes: dict[str, _Ports] = {}
        self._zones: set[str] | None = None  # made when it is first asked for
        # By IP version, then prefix length, longest first: the networks of that length by their first bits.
        self._networks: dict[int, dict[int, dict[int, _Ports]]] = {4: {}, 6: {}}
        for rule in rules:
            self._add(rule)
        self._networks = {
            version: {length: by_length[length] for length in sorted(by_length, reverse=True)}
            for version, by_length in self._networks.items()
        }

    def _add(self, rule: ConnectRule) -> None:
        if rule.length is not None:
            version, number = address_number(rule.host)
            first = number >> ((32 if version == 4 else 128) - rule.length)
            _put(self._networks[version].setdefault(rule.length, {}), first, rule)
        else:
            _put(self._suffixes if rule.wildcard else self._names, rule.host, rule)

    def match(self, host: str, port: int) -> ConnectRule | None:
        """Returns a rule that covers a canonical host, a name or an address, at `port`."""
        found = self._names.get(host)
        if found is not None and (rule := _at(found, port)) is not None:
            return rule
        if self._suffixes and (rule := self.match_wildcard(host, port)) is not None:
            return rule
        return self.match_address(*address_number(host), port) if is_address(host) else None

    def match_wildcard(self, host: str, port: int) -> ConnectRule | None:
        """Returns a wildcard rule that covers a canonical name at `port`."""
        dot = host.find(".")
        while dot >= 0:
            found = self._suffixes.get(host[dot + 1 :])
            if found is not None and (rule := _at(found, port)) is not None:
                return rule
            dot = host.find(".", dot + 1)
        return None

    def names_directly_below(self, zone: str) -> bool:
        """Tells whether some rule names a host that is one label below a canonical name."""
        if self._zones is None:
            self._zones = {name.partition(".")[2] for name in self._names}
        return zone in self._zones

    def at(self, host: str) -> list[ConnectRule]:
        """Returns rules of a host at any port, as far as they can be found without a search."""
        found = [self._names.get(host), self._suffixes.get(host.partition(".")[2])]
        if host and is_address(host):
            version, number = address_number(host)
            bits = 32 if version == 4 else 128
            found += [of_length.get(number >> bits - length) for length, of_length in self._networks[version].items()]
        return [rule for ports in found if ports is not None for rule in _all(ports)]

    def match_address(self, version: int, number: int, port: int) -> ConnectRule | None:
        """Returns the most specific rule that covers an address at `port`."""
        bits = 32 if version == 4 else 128
        for length, networks in self._networks[version].items():
            found = networks.get(number >> (bits - length))
            if found is not None and (rule := _at(found, port)) is not None:
                return rule
        return None

    def match_any_spelling(self, version: int, number: int, port: int) -> ConnectRule | None:
        """As `match_address`, for deny rules: a NAT64 address is also the IPv4 address inside."""
        rule = self.match_address(version, number, port)
        inner = embedded_ipv4(version, number)
        return rule if rule is not None or inner is None else self.match_address(4, inner, port)


def _put(table: dict[_Key, _Ports], key: _Key, rule: ConnectRule) -> None:
    found = table.get(key)
    if found is None and rule.port is None:
        table[key] = rule
        return
    ports: dict[int | None, ConnectRule] = {}
    if found is not None:
        ports = found if isinstance(found, dict) else {None: found}
    ports.setdefault(rule.port, rule)
    table[key] = ports


def _at(found: _Ports, port: int) -> ConnectRule | None:
    if type(found) is dict:
        return found.get(port) or found.get(None)
    return found  # type: ignore[return-value]  # a rule: its exact type is the cheaper question


def _all(found: _Ports) -> Iterable[ConnectRule]:
    return found.values() if isinstance(found, dict) else (found,)
