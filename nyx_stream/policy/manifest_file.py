"""The file `plugin.toml`: its shape and its reader."""

from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from nyx_stream.errors import ManifestError
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.policy_file import LimitsTable, read_paths
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import parse_env

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A plugin's id: it names a directory and stands in every log line."""


class WhyTable(Table):
    """One sentence for the operator, by kind of permission."""

    connect: str | None = None
    request: str | None = None
    read: str | None = None
    write: str | None = None
    env: str | None = None


class PermissionsTable(Table):
    """What the plugin needs."""

    connect: list[str] = Field(default=[], description='Connect rules: "api.example.com".')
    request: list[str] = Field(default=[], description='Request rules: "GET https://api.met.no/v1/**".')
    read: list[str] = Field(default=[], description='Path prefixes to read; "./" is the plugin\'s folder.')
    write: list[str] = Field(
        default=[], description="Path prefixes to read and write; $DATA is the plugin's own directory."
    )
    env: list[str] = Field(default=[], description="Environment variables to read.")
    why: WhyTable = WhyTable()


class ManifestFile(Table):
    """A Nyx plugin: who it is, where its code begins, what it asks for."""

    id: Identifier
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
    entry: Annotated[str, StringConstraints(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")] = Field(
        description='Module and class: "weather:Weather".'
    )
    description: str = ""
    permissions: PermissionsTable = PermissionsTable()
    limits: LimitsTable = LimitsTable()  # type: ignore[valid-type]  # a class made at run time


def read_manifest(path: str) -> dict[str, Any]:
    """Returns the fields of a `Manifest`. Raises `ManifestError` with every fault, or `OSError`."""
    file = ConfigFile(path, ManifestFile, ManifestError)
    values, asked = file.values, file.values.permissions
    fields = {
        "id": values.id,
        "version": values.version,
        "entry": values.entry,
        "description": values.description,
        "connect": file.rules(("permissions", "connect"), asked.connect, ConnectRule.parse),
        "request": file.rules(("permissions", "request"), asked.request, RequestRule.parse),
        "paths": read_paths(file, "permissions", asked.read, asked.write),
        "env": file.rules(("permissions", "env"), asked.env, parse_env),
        "why": MappingProxyType(asked.why.model_dump(exclude_none=True)),
        "limits": file.limits(("limits",), values.limits),
        "asked_limits": frozenset(file.values.model_dump(include={"limits"}, exclude_unset=True).get("limits", {})),
    }
    file.finish()
    return fields
