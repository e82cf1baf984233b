"""What a plugin asks for: the values of `plugin.toml`, read without importing the plugin's code."""

import os
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from nyx_stream.policy.approval import OptionalPermission
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.rules import ConnectRule, PathRule, Places, RequestRule, Rule, bind_all

FILE_NAME = "plugin.toml"


@dataclass(frozen=True)
class Manifest:
    """A plugin's manifest.

    Attributes:
        why: the author's reasons by kind: connect, request, read, write, env.
        limits: the limits that the plugin asks for. Those that aren't in `asked_limits` don't bound the grant.
        asked_limits: the names of the limits that the manifest gives.
        optional: which of the rules the plugin runs without.
        digest: the BLAKE2b hash of the file, 32 bytes as hexadecimal digits; ignored by comparisons.
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
    optional: tuple[OptionalPermission, ...] = ()
    digest: str = field(default="", compare=False, repr=False)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a manifest file.

        Raises:
            ManifestError: with every fault of the file, each with its line and a caret.
            OSError: the file cannot be read.
        """
        # Imported here because pydantic is only needed where a file is read.
        from nyx_stream.policy.manifest_file import read_manifest

        return cls(**read_manifest(os.fspath(path)))

    def bind(self, places: Places) -> Self:
        """Returns the manifest with `$DATA` and `$PLUGIN` replaced by the directories of `places`."""
        bound = (item.bind(places) for item in self.optional)
        optional = tuple(item for item in bound if item is not None)
        return replace(self, paths=bind_all(self.paths, places), optional=optional)

    def reason(self, kind: str, rule: Rule) -> str | None:
        """Returns the author's reason for one of the rules: the rule's own, or that of its kind."""
        own = rule.source.why if rule.source is not None else None
        return own or self.why.get(kind)

    def bounded(self, policy: Limits) -> Limits:
        """Returns the limits of a grant: the policy's, or the manifest's where it asks for less."""
        met = self.limits.meet(policy)
        return replace(policy, **{name: getattr(met, name) for name in self.asked_limits})
