"""The file `plugin.toml`: its shape and its reader."""

from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from nyx_stream.errors import ManifestError
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.permissions import Asked, PermissionsTable
from nyx_stream.policy.policy_file import LimitsTable
from nyx_stream.policy.rule import parse_env

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A plugin's id: it names a directory and stands in every log line."""


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
    values, table = file.values, file.values.permissions
    asked = Asked(file, table)
    fields = {
        "id": values.id,
        "version": values.version,
        "entry": values.entry,
        "description": values.description,
        "connect": asked.rules("connect"),
        "request": asked.rules("request"),
        "paths": asked.rules("read") + asked.rules("write"),
        "env": file.rules(("permissions", "env"), table.env, parse_env),
        "why": MappingProxyType(table.why.model_dump(exclude_none=True)),
        "limits": file.limits(("limits",), values.limits),
        "asked_limits": frozenset(file.values.model_dump(include={"limits"}, exclude_unset=True).get("limits", {})),
        "optional": tuple(asked.optional),
        "digest": file.digest,
    }
    file.finish()
    return fields
