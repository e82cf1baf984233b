"""What a plugin gets: what its manifest asks for, as far as its policy allows it, minus what the policy denies.

The guard enforces the two files themselves: both must allow a target. This module states the result rule by rule, for
people to read before the plugin runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from nyx_stream.policy.coverage import covers, overlaps
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import Places, Rule
from nyx_stream.policy.sandbox_policy import SandboxPolicy

Kind = Literal["connect", "request", "read", "write", "env"]
Status = Literal["granted", "partly", "refused"]


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One permission that the manifest asks for.

    Attributes:
        by: the policy's rules that grant it, completely or in part.
        denied_by: the policy's rules that deny it, completely or in part.
        optional: whether the plugin runs without it, and may ask for it while it runs.
    """

    kind: Kind
    asked: str
    status: Status
    by: tuple[Rule, ...] = ()
    denied_by: tuple[Rule, ...] = ()
    rule: Rule | None = None
    why: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Grant:
    """A manifest under a policy, with the directories of `$DATA` and `$PLUGIN` filled in for both."""

    manifest: Manifest
    policy: SandboxPolicy
    places: Places

    @classmethod
    def of(cls, manifest: Manifest, policy: SandboxPolicy, places: Places) -> Self:
        """Returns the grant of `policy` to the plugin of `manifest`."""
        return cls(manifest.bind(places), policy.bind(places), places)

    @property
    def limits(self) -> Limits:
        """The policy's limits, or the manifest's where it asks for less."""
        return self.manifest.bounded(self.policy.limits)

    @property
    def env(self) -> tuple[str, ...]:
        """Names of the environment variables that are asked for and granted."""
        return tuple(name for name in dict.fromkeys(self.manifest.env) if name in self.policy.env)

    def rows(self) -> tuple[GrantRow, ...]:
        """Returns a row for each permission that the manifest asks for, in its order."""
        asked, policy = self.manifest, self.policy.merged()
        denied_request: tuple[Rule, ...] = (*policy.denied_connect, *policy.denied_request)
        return (
            # A connect rule asks for every request too, so a request rule grants a part of it.
            *(self._row("connect", rule, (*policy.connect, *policy.request), denied_request) for rule in asked.connect),
            *(self._row("request", rule, (*policy.request, *policy.connect), denied_request) for rule in asked.request),
            *(
                self._row("read" if rule.mode == "r" else "write", rule, policy.paths, policy.denied_paths)
                for rule in asked.paths
            ),
            *(
                GrantRow("env", name, "granted" if name in policy.env else "refused", why=asked.why.get("env"))
                for name in asked.env
            ),
        )

    def not_granted(self) -> tuple[GrantRow, ...]:
        """Returns the rows of the required permissions that are refused or only partly granted."""
        return tuple(row for row in self.rows() if row.status != "granted" and not row.optional)

    def _row(self, kind: Kind, asked: Rule, given: Iterable[Rule], denies: Iterable[Rule]) -> GrantRow:
        by = tuple(rule for rule in given if overlaps(rule, asked))
        denied_by = tuple(rule for rule in denies if overlaps(rule, asked))
        status: Status = "partly"
        if not by or any(covers(rule, asked) for rule in denied_by):
            status = "refused"
        elif not denied_by and any(covers(rule, asked) for rule in by):
            status = "granted"
        optional = any((item.kind, item.rule) == (kind, asked) for item in self.manifest.optional)
        return GrantRow(kind, asked.text, status, by, denied_by, asked, self.manifest.reason(kind, asked), optional)
