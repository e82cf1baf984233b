"""Request rules, compiled: found by origin in a hash, then by path in hashes over its segments."""

from collections.abc import Iterable, Iterator

from nyx_stream.policy import RequestRule
from nyx_stream.policy.request_rule import DEFAULT_PORTS
from nyx_stream.policy.url_path import has_encoded_separator, read_loosely

Origin = tuple[str, str, int]
"""Scheme, canonical host, port."""


class PathRules:
    """The rules of one origin: those for every path, those for one path, and patterns by their literal folder."""

    __slots__ = ("_any", "_exact", "_patterns", "escaped")

    def __init__(self) -> None:
        # Those whose path holds an escape: few, and the only ones that a loose reading changes.
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

    def having_paths(self) -> Iterator[RequestRule]:
        """Yields every rule that speaks of a path."""
        return (rule for rule in self if rule.path is not None)


class RequestTable:
    """All request rules of one kind: allowing, denying or asked for."""

    __slots__ = ("_names", "_suffixes")

    def __init__(self, rules: Iterable[RequestRule]) -> None:
        self._names: dict[Origin, PathRules] = {}
        self._suffixes: dict[Origin, PathRules] = {}
        for rule in rules:
            table = self._suffixes if rule.wildcard else self._names
            table.setdefault((rule.scheme, rule.host, rule.port), PathRules()).add(rule)

    def at(self, origin: Origin) -> list[PathRules]:
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
        """Returns a rule that allows a request. An encoded separator in the path matches no path rule."""
        ambiguous = has_encoded_separator(path)
        for rules in self.at(origin):
            for rule in rules.covering(path):
                if rule.allows_method(method) and not (ambiguous and rule.path is not None):
                    return rule
        return None

    def deny(self, origin: Origin, method: str, path: str) -> RequestRule | None:
        """Returns a rule that forbids a request.

        A server may take `//` for `/`, an escaped delimiter for the delimiter, and an encoded separator for a real one.
        So that none of them leads round a deny rule, it is also matched as such a server reads, and a path with encoded
        separators is forbidden wherever a deny rule of its origin speaks of paths.
        """
        ambiguous = has_encoded_separator(path)
        loose = read_loosely(path)
        for rules in self.at(origin):
            candidates = [*rules.covering(path), *rules.covering(loose)]
            if ambiguous:
                candidates += rules.having_paths()
            candidates += (rule for rule in rules.escaped if rule.path is not None and rule.path.loose.matches(loose))
            for rule in candidates:
                if rule.methods is None or method in rule.methods:
                    return rule
        return None

    def any_of(self, host: str, port: int, schemes: Iterable[str] = DEFAULT_PORTS) -> RequestRule | None:
        """Returns some rule for a host at a port, whatever its method and path."""
        for scheme in schemes:
            for rules in self.at((scheme, host, port)):
                return next(iter(rules))
        return None
