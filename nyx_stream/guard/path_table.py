"""Path rules, compiled: one hash of prefixes, walked up from the path by component. Pure text."""

from bisect import bisect_left
from collections.abc import Iterable

from nyx_core.beneath.text import Flavour, is_absolute, normalise
from nyx_stream.policy import PathRule
from nyx_stream.policy.path_rule import path_key


class PathTable:
    """Prefixes that cover themselves and what lies below them. Rules of another platform's flavour match nothing."""

    __slots__ = ("_keys", "_separator", "rules")

    def __init__(self, rules: Iterable[PathRule], flavour: Flavour) -> None:
        self._separator = "\\" if flavour == "windows" else "/"
        self.rules: dict[str, PathRule] = {}
        for rule in rules:
            if is_absolute(rule.prefix, flavour):
                self.rules.setdefault(path_key(normalise(rule.prefix, flavour), flavour), rule)
        self._keys: list[str] | None = None

    def covering(self, key: str) -> PathRule | None:
        """Returns the longest prefix that covers the path of `key`."""
        rules, separator = self.rules, self._separator
        while True:
            rule = rules.get(key)
            if rule is not None:
                return rule
            cut = key.rfind(separator)
            if cut < 0:
                return None
            key = key[:cut]

    def below(self, key: str) -> PathRule | None:
        """Returns some prefix that lies strictly below the path of `key`."""
        if self._keys is None:
            self._keys = sorted(self.rules)
        start = key + self._separator
        place = bisect_left(self._keys, start)
        if place < len(self._keys) and self._keys[place].startswith(start):
            return self.rules[self._keys[place]]
        return None
