"""Rules compiled into look-ups, whose cost depends on the target and not on the number of rules.

`HostTable` finds names in a hash, wildcards by walking the labels, networks in one hash per prefix length.
`RequestTable` finds the rules of an origin in a hash, then matches the path in hashes over its segments.
`PathTable` finds prefixes in a hash, walking up from the path by component.
`RuleTables` is one of each: the rules that allow, the rules that deny, or what a manifest asks for.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from nyx_core.beneath.text import Flavour, components, fold, is_absolute, normalise
from nyx_stream.guard.special_addresses import embedded_ipv4
from nyx_stream.policy import ConnectRule, Mode, PathRule, RequestRule
from nyx_stream.policy.hosts import address_number, is_address
from nyx_stream.policy.rules import DEFAULT_PORTS, path_key
from nyx_stream.policy.url_path import has_encoded_separator, lenient_path

_Key = TypeVar("_Key", str, int)

# Either the rule for every port, or the rules by port, where `None` is the key for every other port.
_Ports = ConnectRule | dict[int | None, ConnectRule]

Origin = tuple[str, str, int]
"""Scheme, canonical host, port."""

Endpoint = tuple[str, int]
"""Canonical host, port."""

RequestTarget = tuple[Origin, str, str]
"""Origin, method in upper case, normalised path."""

PathTarget = tuple[str, Mode]
"""The `path_key` of an absolute, normal path, and the mode."""


class HostTable:
    """Compiled connect rules."""

    __slots__ = ("_names", "_networks", "_parents", "_suffixes", "empty")

    def __init__(self, rules: Sequence[ConnectRule]) -> None:
        self.empty = not rules
        self._names: dict[str, _Ports] = {}
        self._suffixes: dict[str, _Ports] = {}
        self._parents: set[str] | None = None  # the parent domains of `_names`, computed on first use
        # By IP version, then prefix length, longest first: the networks of that length by their first bits.
        self._networks: dict[int, dict[int, dict[int, _Ports]]] = {4: {}, 6: {}}
        for rule in rules:
            if rule.length is None:
                _add_port(self._suffixes if rule.wildcard else self._names, rule.host, rule)
                continue
            version, number = address_number(rule.host)
            first_bits = number >> ((32 if version == 4 else 128) - rule.length)
            _add_port(self._networks[version].setdefault(rule.length, {}), first_bits, rule)
        for version, by_length in self._networks.items():
            self._networks[version] = {length: by_length[length] for length in sorted(by_length, reverse=True)}

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
        """Returns whether some rule names a host that is one label below a canonical name."""
        if self._parents is None:
            self._parents = {name.partition(".")[2] for name in self._names}
        return zone in self._parents

    def near(self, host: str) -> list[ConnectRule]:
        """Returns the rules for a host at any port that can be found by look-up."""
        found = [self._names.get(host), self._suffixes.get(host.partition(".")[2])]
        if host and is_address(host):
            version, number = address_number(host)
            bits = 32 if version == 4 else 128
            found += [networks.get(number >> bits - length) for length, networks in self._networks[version].items()]
        rules: list[ConnectRule] = []
        for ports in found:
            if ports is not None:
                rules += ports.values() if isinstance(ports, dict) else (ports,)
        return rules

    def match_address(self, version: int, number: int, port: int) -> ConnectRule | None:
        """Returns the most specific rule that covers an address at `port`."""
        bits = 32 if version == 4 else 128
        for length, networks in self._networks[version].items():
            found = networks.get(number >> (bits - length))
            if found is not None and (rule := _at(found, port)) is not None:
                return rule
        return None

    def match_any_spelling(self, version: int, number: int, port: int) -> ConnectRule | None:
        """Like `match_address`, for deny rules: a NAT64 address is also the IPv4 address embedded in it."""
        rule = self.match_address(version, number, port)
        inner = embedded_ipv4(version, number)
        return rule if rule is not None or inner is None else self.match_address(4, inner, port)


class OriginRules:
    """The request rules of one origin: for every path, for one path, and patterns by their literal folder."""

    __slots__ = ("_any", "_exact", "_patterns", "escaped")

    def __init__(self) -> None:
        # Rules whose path contains an escape: few, and only these match differently in a lenient reading.
        self.escaped: list[RequestRule] = []
        self._any: list[RequestRule] = []
        self._exact: dict[str, list[RequestRule]] = {}
        self._patterns: dict[str, list[RequestRule]] = {}

    def add(self, rule: RequestRule) -> None:
        if rule.path is not None and "%" in rule.path.text:
            self.escaped.append(rule)
        if rule.path is None:
            self._any.append(rule)
        elif rule.path.exact:
            self._exact.setdefault(rule.path.text, []).append(rule)
        else:
            literal = rule.path.literal
            self._patterns.setdefault(literal[: literal.rfind("/") + 1], []).append(rule)

    def __iter__(self) -> Iterator[RequestRule]:
        yield from self._any
        for table in (self._exact, self._patterns):
            for rules in table.values():
                yield from rules

    def covering(self, path: str) -> Iterator[RequestRule]:
        """Yields every rule that covers a normalised path."""
        yield from self._any
        yield from self._exact.get(path, ())
        if self._patterns:
            end = path.find("/") + 1
            while end:
                for rule in self._patterns.get(path[:end], ()):
                    if rule.path is not None and rule.path.matches(path):
                        yield rule
                end = path.find("/", end) + 1


class RequestTable:
    """Compiled request rules."""

    __slots__ = ("_names", "_suffixes", "empty")

    def __init__(self, rules: Sequence[RequestRule]) -> None:
        self.empty = not rules
        self._names: dict[Origin, OriginRules] = {}
        self._suffixes: dict[Origin, OriginRules] = {}
        for rule in rules:
            table = self._suffixes if rule.wildcard else self._names
            table.setdefault((rule.scheme, rule.host, rule.port), OriginRules()).add(rule)

    def at(self, origin: Origin) -> list[OriginRules]:
        """Returns the rules of every host pattern that covers an origin, the exact host first."""
        scheme, host, port = origin
        found = [rules] if (rules := self._names.get(origin)) is not None else []
        if self._suffixes and ":" not in host:
            dot = host.find(".")
            while dot >= 0:
                if (rules := self._suffixes.get((scheme, host[dot + 1 :], port))) is not None:
                    found.append(rules)
                dot = host.find(".", dot + 1)
        return found

    def allow(self, origin: Origin, method: str, path: str) -> RequestRule | None:
        """Returns a rule that allows a request. A rule with a path never matches a path with an encoded separator."""
        ambiguous = has_encoded_separator(path)
        for rules in self.at(origin):
            for rule in rules.covering(path):
                if method in rule.allowed_methods and not (ambiguous and rule.path is not None):
                    return rule
        return None

    def deny(self, origin: Origin, method: str, path: str) -> RequestRule | None:
        """Returns a rule that forbids a request.

        A server may read `//` as `/`, an escaped delimiter as the delimiter, and an encoded separator as a real one. To
        prevent a bypass, deny rules are also matched against the lenient reading of the path, and a path with an
        encoded separator is forbidden if any deny rule of its origin has a path.
        """
        ambiguous = has_encoded_separator(path)
        lenient = lenient_path(path)
        for rules in self.at(origin):
            candidates = [*rules.covering(path), *rules.covering(lenient)]
            if ambiguous:
                candidates += (rule for rule in rules if rule.path is not None)
            candidates += (r for r in rules.escaped if r.path is not None and r.path.lenient.matches(lenient))
            for rule in candidates:
                if rule.methods is None or method in rule.methods:
                    return rule
        return None

    def any_of(self, host: str, port: int) -> RequestRule | None:
        """Returns some rule for a host at a port, with any scheme, method and path."""
        for scheme in DEFAULT_PORTS:
            for rules in self.at((scheme, host, port)):
                return next(iter(rules))
        return None


class PathTable:
    """Compiled path rules. Rules written for the other platform's paths match nothing."""

    __slots__ = ("_keys", "_rules", "_separator")

    def __init__(self, rules: Iterable[PathRule], flavour: Flavour) -> None:
        self._separator = "\\" if flavour == "windows" else "/"
        self._rules: dict[str, PathRule] = {}
        for rule in rules:
            if is_absolute(rule.prefix, flavour):
                self._rules.setdefault(path_key(normalise(rule.prefix, flavour), flavour), rule)
        self._keys: list[str] | None = None  # sorted, on first use

    def covering(self, key: str) -> PathRule | None:
        """Returns the longest prefix that covers the path of `key`."""
        rules, separator = self._rules, self._separator
        while rules:
            rule = rules.get(key)
            if rule is not None:
                return rule
            cut = key.rfind(separator)
            if cut < 0:
                return None
            key = key[:cut]
        return None

    def below(self, key: str) -> PathRule | None:
        """Returns some prefix that is strictly below the path of `key`."""
        if self._keys is None:
            self._keys = sorted(self._rules)
        start = key + self._separator
        index = bisect_left(self._keys, start)
        if index < len(self._keys) and self._keys[index].startswith(start):
            return self._rules[self._keys[index]]
        return None


class RuleTables:
    """The compiled rules of one kind: allow rules, deny rules, or what a manifest asks for.

    Each `allows_…` and `denies_…` returns a matching rule or `None`.
    """

    __slots__ = ("_writable", "hosts", "paths", "requests")

    def __init__(
        self,
        connect: Sequence[ConnectRule],
        request: Sequence[RequestRule],
        paths: Sequence[PathRule],
        flavour: Flavour,
    ) -> None:
        self.hosts = HostTable(connect)
        self.requests = RequestTable(request)
        self.paths = PathTable(paths, flavour)
        self._writable = PathTable([rule for rule in paths if rule.mode == "rw"], flavour)

    def allows_connection(self, target: Endpoint) -> ConnectRule | None:
        host, port = target
        return self.hosts.match(host, port)

    def allows_dialling(self, target: Endpoint) -> ConnectRule | RequestRule | None:
        host, port = target
        return self.hosts.match(host, port) or self.requests.any_of(host, port)

    def allows_request(self, target: RequestTarget) -> ConnectRule | RequestRule | None:
        origin, method, path = target
        rule = self.requests.allow(origin, method, path)
        if rule is None and origin[0] in ("http", "https"):
            return self.hosts.match(origin[1], origin[2])
        return rule

    def allows_path(self, target: PathTarget) -> PathRule | None:
        key, mode = target
        return (self.paths if mode == "r" else self._writable).covering(key)

    def lists_address(self, version: int, number: int, address: str, port: int) -> ConnectRule | RequestRule | None:
        """Returns a rule that names an address itself, or its network."""
        return self.hosts.match_address(version, number, port) or self.requests.any_of(address, port)

    def denies_host(self, target: Endpoint) -> ConnectRule | None:
        if self.hosts.empty:
            return None
        host, port = target
        if is_address(host):
            return self.hosts.match_any_spelling(*address_number(host), port)
        return self.hosts.match(host, port)

    def denies_request(self, target: RequestTarget) -> ConnectRule | RequestRule | None:
        origin, method, path = target
        rule = None if self.hosts.empty else self.denies_host(origin[1:])
        return self.requests.deny(origin, method, path) if rule is None and not self.requests.empty else rule

    def denies_path(self, target: PathTarget) -> PathRule | None:
        return self.paths.covering(target[0])


def path_below(given: str, normal: str, prefix: str, flavour: Flavour) -> str:
    """Returns the part of a path below `prefix`, which covers it.

    It is the text as `given`, so that the kernel resolves it physically. If `given` reaches the prefix by another
    spelling, it is the rest of the `normal` text.
    """
    if flavour == "posix" and given is normal:
        # The given text is already normal, and the prefix covers it.
        return normal[len(normalise(prefix, flavour)) :].lstrip("/") or "."
    separator = "\\" if flavour == "windows" else "/"
    if flavour == "windows":
        given = given.replace("/", "\\")
    expected = list(components(normalise(prefix, flavour), flavour))
    depth, rest = len(expected), given
    while expected:
        name, _, rest = rest.partition(separator)
        if name in ("", "."):
            if not rest and not name:
                break
            continue
        if fold(name, flavour) != fold(expected[0], flavour):
            break
        expected.pop(0)
    if expected:
        return separator.join(components(normal, flavour)[depth:]) or "."
    return rest.lstrip(separator) or "."


def _add_port(table: dict[_Key, _Ports], key: _Key, rule: ConnectRule) -> None:
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
    return found  # type: ignore[return-value]  # a rule; comparing the exact type is cheaper than isinstance
