"""What a plugin asks for, as values: `plugin.toml`, read without importing a line of the plugin's code."""

import os
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.coverage import Rule
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.optional import OptionalPermission
from nyx_stream.policy.path_rule import PathRule, Places, bind_all
from nyx_stream.policy.request_rule import RequestRule

FILE_NAME = "plugin.toml"


@dataclass(frozen=True)
class Manifest:
    """A manifest as values. `why` has the author's reasons by kind: connect, request, read, write, env.

    Limits that the manifest does not name are the largest: a plugin that asks for nothing special is bounded by its
    policy alone. `asked_limits` has the names that it does give. `optional` says which of the rules the plugin runs
    without. `digest` is the BLAKE2b hash of the file that was read, 32 bytes as hexadecimal digits; it counts in no
    comparison.
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
        # Imported here, for pydantic is only needed where a file is read.
        from nyx_stream.policy.manifest_file import read_manifest

        return cls(**read_manifest(os.fspath(path)))

    def bind(self, places: Places) -> Self:
        """Returns the manifest with `$DATA` and `$PLUGIN` replaced by the directories of `places`."""
        bound = (item.bind(places) for item in self.optional)
        optional = tuple(item for item in bound if item is not None)
        return replace(self, paths=bind_all(self.paths, places), optional=optional)

    def reason(self, kind: str, rule: Rule) -> str | None:
        """Returns the author's reason for one of its rules: that of the rule itself, or that of its kind."""
        own = rule.source.why if rule.source is not None else None
        return own or self.why.get(kind)

    def bounded(self, policy: Limits) -> Limits:
        """Returns the limits of a grant: the policy's, or the manifest's where it asks for less."""
        met = self.limits.meet(policy)
        return replace(policy, **{name: getattr(met, name) for name in self.asked_limits})
