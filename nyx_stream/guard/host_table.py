"""Connect rules, compiled: the cost of a look-up depends on the labels of the host, not on the number of rules."""

from collections.abc import Iterable

from nyx_stream.guard.special_addresses import embedded_ipv4
from nyx_stream.policy import ConnectRule
from nyx_stream.policy.hosts import address_number, is_address

# A rule for every port is stored under its host alone, one for a single port under host and port.
_Key = str | tuple[str, int]


class HostTable:
    """Exact names in a hash, wildcards by label walk, networks by one hash per prefix length in use."""

    __slots__ = ("_names", "_networks", "_suffixes")

    def __init__(self, rules: Iterable[ConnectRule]) -> None:
        self._names: dict[_Key, ConnectRule] = {}
        self._suffixes: dict[_Key, ConnectRule] = {}
        # By IP version, then prefix length: the rules of the networks of that length, by first bits (and port).
        self._networks: dict[int, dict[int, dict[int | tuple[int, int], ConnectRule]]] = {4: {}, 6: {}}
        for rule in rules:
            self._add(rule)

    def _add(self, rule: ConnectRule) -> None:
        if rule.length is not None:
            version, number = address_number(rule.host)
            first = number >> ((32 if version == 4 else 128) - rule.length)
            key: int | tuple[int, int] = first if rule.port is None else (first, rule.port)
            self._networks[version].setdefault(rule.length, {}).setdefault(key, rule)
            return
        table = self._suffixes if rule.wildcard else self._names
        table.setdefault(rule.host if rule.port is None else (rule.host, rule.port), rule)

    def match(self, host: str, port: int) -> ConnectRule | None:
        """Returns a rule that covers a canonical host, a name or an address, at `port`."""
        if is_address(host):
            return self.match_address(*address_number(host), port)
        names = self._names
        rule = names.get(host) or names.get((host, port))
        if rule is not None or not self._suffixes:
            return rule
        suffixes = self._suffixes
        dot = host.find(".")
        while dot >= 0:
            suffix = host[dot + 1 :]
            rule = suffixes.get(suffix) or suffixes.get((suffix, port))
            if rule is not None:
                return rule
            dot = host.find(".", dot + 1)
        return None

    def at(self, host: str) -> list[ConnectRule]:
        """Returns the rules of a name, whatever their port, as far as they can be found without a search."""
        suffix = host.partition(".")[2]
        found = (self._names.get(host), self._suffixes.get(suffix))
        return [rule for rule in found if rule is not None]

    def match_address(self, version: int, number: int, port: int) -> ConnectRule | None:
        """Returns the most specific rule that covers an address at `port`."""
        bits = 32 if version == 4 else 128
        by_length = self._networks[version]
        for length in sorted(by_length, reverse=True):
            first = number >> (bits - length)
            rule = by_length[length].get(first) or by_length[length].get((first, port))
            if rule is not None:
                return rule
        return None

    def match_any_spelling(self, version: int, number: int, port: int) -> ConnectRule | None:
        """As `match_address`, for deny rules: a NAT64 address is also the IPv4 address inside."""
        rule = self.match_address(version, number, port)
        inner = embedded_ipv4(version, number)
        return rule if rule is not None or inner is None else self.match_address(4, inner, port)
