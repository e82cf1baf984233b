"""The table `[permissions]` of a manifest: its shape, and how its entries become rules. Knows no other table."""

from functools import partial
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from nyx_stream.policy.config_file import TAGGED, ConfigFile, Table
from nyx_stream.policy.coverage import Rule
from nyx_stream.policy.optional import OptionalKind, OptionalPermission, parse_target
from nyx_stream.policy.rule import Source


class WhyTable(Table):
    """One sentence for the operator, by kind of permission."""

    connect: str | None = None
    request: str | None = None
    read: str | None = None
    write: str | None = None
    env: str | None = None


class PermissionTable(Table):
    """One rule with more to say about it than its text."""

    rule: str = Field(description="As it would stand alone in the list.")
    optional: bool = Field(
        default=False, description="Whether the plugin runs without it, and may ask for it while it runs."
    )
    why: str | None = Field(default=None, description="One sentence for whoever approves it.")


def _form(value: object) -> str:
    return f"{TAGGED}{'table' if isinstance(value, dict) else 'text'}"


_Rules = list[
    Annotated[
        Annotated[str, Tag(f"{TAGGED}text")] | Annotated[PermissionTable, Tag(f"{TAGGED}table")],
        Discriminator(_form),
    ]
]


class PermissionsTable(Table):
    """What the plugin needs, and what it can do without. A rule is a text, or a table that says more."""

    connect: _Rules = Field(default=[], description='Connect rules: "api.example.com".')
    request: _Rules = Field(default=[], description='Request rules: "GET https://api.met.no/v1/**".')
    read: _Rules = Field(default=[], description='Path prefixes to read; "./" is the plugin\'s folder.')
    write: _Rules = Field(
        default=[], description="Path prefixes to read and write; $DATA is the plugin's own directory."
    )
    env: list[str] = Field(default=[], description="Environment variables to read.")
    why: WhyTable = WhyTable()


class Asked:
    """Reads the lists of the table, and keeps what is optional of them."""

    def __init__(self, file: ConfigFile[Any], table: PermissionsTable) -> None:
        self._file = file
        self._table = table
        self.optional: list[OptionalPermission] = []

    def rules(self, kind: OptionalKind) -> tuple[Any, ...]:
        """Returns the rules of one kind, the optional ones among them; the rules are of the type of that kind."""
        items: list[str | PermissionTable] = getattr(self._table, kind)
        rules = (self._rule(kind, index, item) for index, item in enumerate(items))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, kind: OptionalKind, index: int, item: str | PermissionTable) -> Rule | None:
        key = ("permissions", kind, index)
        if isinstance(item, str):
            return self._file.rule(key, item, partial(parse_target, kind))
        why = item.why

        def parse(text: str, source: Source) -> Rule:
            return parse_target(kind, text, Source(source.where, source.line, why))

        rule = self._file.rule((*key, "rule"), item.rule, parse)
        if rule is not None and item.optional:
            self.optional.append(OptionalPermission(kind, rule, why or getattr(self._table.why, kind)))
        return rule
