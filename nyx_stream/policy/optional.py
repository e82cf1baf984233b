"""A permission that a plugin runs without and may ask for while it runs. A value; asks nobody."""

from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.coverage import Rule, covers
from nyx_stream.policy.path_rule import PathRule, Places
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import Source

OptionalKind: TypeAlias = Literal["connect", "request", "read", "write"]

KINDS: tuple[OptionalKind, ...] = ("connect", "request", "read", "write")
"""Kinds of permission that can be optional. A variable cannot: what was read once is known."""


@dataclass(frozen=True)
class OptionalPermission:
    """One optional permission of a manifest; `why` is its author's reason."""

    kind: OptionalKind
    rule: Rule
    why: str | None = None

    def bind(self, places: Places) -> Self | None:
        """Returns it with the variable of a path replaced; `None` where `places` does not know the variable."""
        if not isinstance(self.rule, PathRule):
            return self
        bound = self.rule.bind(places)
        return None if bound is None else replace(self, rule=bound)

    def covers(self, kind: str, target: Rule) -> bool:
        """Whether it is this permission that `target` needs: of its kind, and no more than it."""
        return kind == self.kind and covers(self.rule, target)


def parse_target(kind: OptionalKind, text: str, source: Source | None = None) -> Rule:
    """Returns the rule of that kind for what a plugin wants to do; raises `RuleError`."""
    match kind:
        case "connect":
            return ConnectRule.parse(text, source)
        case "request":
            return RequestRule.parse(text, source)
        case _:
            return PathRule.parse(text, "r" if kind == "read" else "rw", source)
