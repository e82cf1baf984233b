"""The file `plugin.toml`: its tables, its reader and its JSON Schema."""

from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Discriminator, Field, StringConstraints, Tag

from nyx_stream.errors import ManifestError
from nyx_stream.policy.approval import OptionalKind, OptionalPermission, parse_target
from nyx_stream.policy.config_file import UNION_TAG, ConfigFile, Table
from nyx_stream.policy.limits import Limits, parse_limit
from nyx_stream.policy.policy_file import LimitsTable
from nyx_stream.policy.rules import Rule, parse_env

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A plugin's id. It names a directory and appears in every log record."""


class WhyTable(Table):
    """One sentence for the operator, by kind of permission."""

    connect: str | None = None
    request: str | None = None
    read: str | None = None
    write: str | None = None
    env: str | None = None


class PermissionTable(Table):
    """A rule with options."""

    rule: str = Field(description="The rule, as it would be written without options.")
    optional: bool = Field(
        default=False, description="Whether the plugin runs without it, and may ask for it while it runs."
    )
    why: str | None = Field(default=None, description="One sentence for the person who approves it.")


def _form(value: object) -> str:
    return f"{UNION_TAG}{'table' if isinstance(value, dict) else 'text'}"


_Rules = list[
    Annotated[
        Annotated[str, Tag(f"{UNION_TAG}text")] | Annotated[PermissionTable, Tag(f"{UNION_TAG}table")],
        Discriminator(_form),
    ]
]


class PermissionsTable(Table):
    """What the plugin needs, and what it can do without. A rule is a text, or a table with options."""

    connect: _Rules = Field(default=[], description='Connect rules: "api.example.com".')
    request: _Rules = Field(default=[], description='Request rules: "GET https://api.met.no/v1/**".')
    read: _Rules = Field(default=[], description='Path prefixes to read; "./" is the plugin\'s folder.')
    write: _Rules = Field(
        default=[], description="Path prefixes to read and write; $DATA is the plugin's own directory."
    )
    env: list[str] = Field(default=[], description="Environment variables to read.")
    why: WhyTable = WhyTable()


class ManifestFile(Table):
    """A Nyx plugin: its id and version, its entry point, and the permissions it asks for."""

    id: Identifier
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
    entry: Annotated[str, StringConstraints(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")] = Field(
        description='Module and class: "weather:Weather".'
    )
    description: str = ""
    permissions: PermissionsTable = PermissionsTable()
    limits: LimitsTable = LimitsTable()  # type: ignore[valid-type]  # a class made at run time


def manifest_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `plugin.toml`."""
    return ManifestFile.model_json_schema()


def read_manifest(path: str) -> dict[str, Any]:
    """Returns the fields of a `Manifest`. Raises `ManifestError` with every fault, or `OSError`."""
    file = ConfigFile(path, ManifestFile, ManifestError)
    values, permissions = file.values, file.values.permissions
    optional: list[OptionalPermission] = []
    fields = {
        "id": values.id,
        "version": values.version,
        "entry": values.entry,
        "description": values.description,
        "connect": _read_rules(file, "connect", optional),
        "request": _read_rules(file, "request", optional),
        "paths": _read_rules(file, "read", optional) + _read_rules(file, "write", optional),
        "env": file.rules(("permissions", "env"), permissions.env, parse_env),
        "why": MappingProxyType(permissions.why.model_dump(exclude_none=True)),
        "limits": Limits(**file.bounds(("limits",), values.limits, parse_limit)),
        "asked_limits": frozenset(values.model_dump(include={"limits"}, exclude_unset=True).get("limits", {})),
        "optional": tuple(optional),
        "digest": file.digest,
    }
    file.finish()
    return fields


def _read_rules(
    file: ConfigFile[ManifestFile], kind: OptionalKind, optional: list[OptionalPermission]
) -> tuple[Rule, ...]:
    """Returns the rules of one kind, including the optional ones, which it adds to `optional`."""
    permissions = file.values.permissions
    items: list[str | PermissionTable] = getattr(permissions, kind)
    rules: list[Rule | None] = []
    for index, item in enumerate(items):
        key = ("permissions", kind, index)
        if isinstance(item, str):
            rules.append(file.rule(key, item, partial(parse_target, kind)))
            continue
        rule = file.rule((*key, "rule"), item.rule, partial(parse_target, kind), why=item.why)
        rules.append(rule)
        if rule is not None and item.optional:
            optional.append(OptionalPermission(kind, rule, item.why or getattr(permissions.why, kind)))
    return tuple(rule for rule in rules if rule is not None)
