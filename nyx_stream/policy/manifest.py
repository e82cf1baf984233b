"""What a plugin asks for: `plugin.toml`, read without importing a line of the plugin's code."""

import os
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from nyx_stream.errors import ManifestError
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import PathRule, Places, bind_all
from nyx_stream.policy.policy_file import LimitsTable, read_paths
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import parse_env

FILE_NAME = "plugin.toml"

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A plugin's id: it names a directory and stands in every log line."""

_KINDS = ("connect", "request", "read", "write", "env")


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


@dataclass(frozen=True)
class Manifest:
    """A manifest as values. `why` has the author's reasons by kind: connect, request, read, write, env.

    Limits that the manifest does not name are the largest: a plugin that asks for nothing special is bounded by its
    policy alone. `asked_limits` has the names that it does give.
    """

    id: str
    version: str
    entry: str
    description: str = ""
    connect: tuple[ConnectRule, ...] = ()
    request: tuple[RequestRule, ...] = ()
    paths: tuple[PathRule, ...] = ()
    env: tuple[str, ...] = ()
    why: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    limits: Limits = field(default_factory=Limits)
    asked_limits: frozenset[str] = frozenset()

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a manifest file.

        Raises:
            ManifestError: with every fault of the file, each with its line and a caret.
            OSError: the file cannot be read.
        """
        file = ConfigFile(os.fspath(path), ManifestFile, ManifestError)
        values, asked = file.values, file.values.permissions
        manifest = cls(
            id=values.id,
            version=values.version,
            entry=values.entry,
            description=values.description,
            connect=file.rules(("permissions", "connect"), asked.connect, ConnectRule.parse),
            request=file.rules(("permissions", "request"), asked.request, RequestRule.parse),
            paths=read_paths(file, "permissions", asked.read, asked.write),
            env=file.rules(("permissions", "env"), asked.env, parse_env),
            why=MappingProxyType(asked.why.model_dump(exclude_none=True)),
            limits=file.limits(("limits",), values.limits),
            asked_limits=frozenset(file.values.model_dump(include={"limits"}, exclude_unset=True).get("limits", {})),
        )
        file.finish()
        return manifest

    def bind(self, places: Places) -> Self:
        """Returns the manifest with `$DATA` and `$PLUGIN` replaced by the directories of `places`."""
        return replace(self, paths=bind_all(self.paths, places))

    def bounded(self, policy: Limits) -> Limits:
        """Returns the limits of a grant: the policy's, or the manifest's where it asks for less."""
        met = self.limits.meet(policy)
        return replace(policy, **{name: getattr(met, name) for name in self.asked_limits})
