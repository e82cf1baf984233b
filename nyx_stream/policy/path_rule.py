"""Rules for files: a prefix and a mode. `$DATA` and `$PLUGIN` stand for directories that the host names later."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, Self

from nyx_core.beneath.text import Flavour, components, fold, is_absolute, normalise, refuse_reason
from nyx_stream.policy.rule import RuleError, Source

Mode = Literal["r", "rw"]
"""`r`: read, list, stat. `rw`: also create, write, rename, remove."""

Places = Mapping[str, str]
"""Absolute directories by variable name: `{"$DATA": "/var/lib/app/weather", "$PLUGIN": "/opt/plugins/weather"}`."""

NO_PLACES: Places = MappingProxyType({})
VARIABLES = ("$DATA", "$PLUGIN")


@dataclass(frozen=True)
class PathRule:
    """`prefix` is absolute and normalised, or begins with a variable; it covers itself and what lies below it."""

    prefix: str
    mode: Mode = "r"
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, mode: str = "r", source: Source | None = None) -> Self:
        """Reads one prefix; raises `RuleError`. Both POSIX and Windows paths are read, on every platform."""
        checked = _parse_mode(mode)
        flavour: Flavour = "windows" if is_absolute(text, "windows") else "posix"
        reason = refuse_reason(text, flavour)
        if reason is not None:
            raise RuleError(text, reason)
        if ".." in components(text, flavour):
            raise RuleError(text, "'..' cannot stand in a prefix", text.index(".."))
        if is_absolute(text, flavour):
            return cls(normalise(text, flavour), checked, source)
        first, *rest = text.split("/")
        variable = "$PLUGIN" if first == "." else first
        if variable not in VARIABLES:
            raise RuleError(text, "a prefix is absolute, or begins with $DATA, $PLUGIN or ./")
        return cls("/".join([variable, *(part for part in rest if part not in ("", "."))]), checked, source)

    def bind(self, places: Places) -> Self | None:
        """Returns the rule with its variable replaced, or `None` where `places` does not know the variable."""
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


def bind_all(rules: Iterable[PathRule], places: Places) -> tuple[PathRule, ...]:
    """Returns the rules with their variables replaced, without those whose variable `places` does not know."""
    return tuple(bound for rule in rules if (bound := rule.bind(places)) is not None)


def path_key(path: str, flavour: Flavour) -> str:
    r"""Returns the text by which an absolute, normal path is compared: folded, a root without its separator."""
    return fold(path.rstrip("\\" if flavour == "windows" else "/"), flavour)


def _parse_mode(mode: str) -> Mode:
    match mode:
        case "r":
            return "r"
        case "rw":
            return "rw"
    raise RuleError(mode, 'a mode is "r" or "rw"')
