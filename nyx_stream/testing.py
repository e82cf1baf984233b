"""For plugin authors: runs a plugin in a real host with the real guard for the duration of a test."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nyx_stream.audit import AuditEvent
from nyx_stream.host import Handle, PluginHost, find
from nyx_stream.isolation.backend import Level
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.manifest import Manifest

if TYPE_CHECKING:
    from nyx_stream.capabilities.http import Network
    from nyx_stream.host.approvals.prompts import Approver

__all__ = ["RunningPlugin", "run_plugin"]


@dataclass(frozen=True, slots=True)
class RunningPlugin:
    """The plugin under test: its handle, its data directory, and every decision about it."""

    handle: Handle
    data: str
    events: list[AuditEvent] = field(default_factory=list)

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Calls an exported method; see `Handle.call`."""
        return await self.handle.call(method, **arguments)

    @property
    def denied(self) -> list[AuditEvent]:
        """The denied decisions, oldest first."""
        return [event for event in self.events if not event.allowed]


@asynccontextmanager
async def run_plugin(
    folder: str | os.PathLike[str],
    *,
    policy: SandboxPolicy | str | os.PathLike[str] | None = None,
    isolation: Level = "inline",
    network: "Network | None" = None,
    approver: "Approver | None" = None,
) -> AsyncIterator[RunningPlugin]:
    """Runs the plugin in `folder` with a temporary data directory.

    Without `policy` the plugin is granted exactly what its manifest requests, so a test shows whether the manifest is
    sufficient. Optional permissions are granted too, unless there is an `approver` to ask for them. Raises like
    `PluginHost.load`.
    """
    events: list[AuditEvent] = []
    with tempfile.TemporaryDirectory(prefix="nyx-") as data:
        async with PluginHost(audit=events.append, data_dir=data, network=network, approver=approver) as host:
            if policy is None:
                policy = _policy_for(find(folder).manifest, optional=approver is None)
            handle = await host.load(folder, policy=policy, isolation=isolation)
            yield RunningPlugin(handle, os.path.join(data, handle.id), events)


def _policy_for(manifest: Manifest, *, optional: bool) -> SandboxPolicy:
    """Returns the policy that grants everything a manifest requests, with or without what is optional."""
    excluded = set() if optional else {id(item.rule) for item in manifest.optional}
    return SandboxPolicy(
        connect=tuple(rule for rule in manifest.connect if id(rule) not in excluded),
        request=tuple(rule for rule in manifest.request if id(rule) not in excluded),
        paths=tuple(rule for rule in manifest.paths if id(rule) not in excluded),
        env=manifest.env,
        limits=manifest.limits,
    )
