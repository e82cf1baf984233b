"""One plugin in a host of its own, for the length of a test. A real host, a real guard, real files."""

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
    from nyx_stream.capabilities.http import NetworkBackend
    from nyx_stream.host.approvals.prompts import Approver


@dataclass(frozen=True, slots=True)
class RunningPlugin:
    """The plugin under test: its handle, its data directory and every decision that it caused."""

    handle: Handle
    data: str
    events: list[AuditEvent] = field(default_factory=list)

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Calls an exported method; see `Handle.call`."""
        return await self.handle.call(method, **arguments)

    @property
    def denied(self) -> list[AuditEvent]:
        """What it was denied, oldest first."""
        return [event for event in self.events if not event.allowed]


@asynccontextmanager
async def run_plugin(
    folder: str | os.PathLike[str],
    *,
    policy: SandboxPolicy | str | os.PathLike[str] | None = None,
    isolation: Level = "inline",
    network: "NetworkBackend | None" = None,
    approver: "Approver | None" = None,
) -> AsyncIterator[RunningPlugin]:
    """Runs the plugin in `folder` with a temporary data directory.

    Without `policy` it is granted exactly what its manifest asks for, so that a test shows whether the manifest is
    enough; what is optional in it only without `approver`, which otherwise is asked. Raises as `PluginHost.load`.
    """
    events: list[AuditEvent] = []
    with tempfile.TemporaryDirectory(prefix="nyx-") as data:
        async with PluginHost(audit=events.append, data_dir=data, network=network, approver=approver) as host:
            asked = find(folder).manifest
            granted = policy if policy is not None else everything_asked(asked, optional=approver is None)
            handle = await host.load(folder, policy=granted, isolation=isolation)
            yield RunningPlugin(handle, os.path.join(data, handle.id), events)


def everything_asked(manifest: Manifest, *, optional: bool = True) -> SandboxPolicy:
    """Returns the policy that grants a manifest everything it asks for, or all that is not optional."""
    left = {id(item.rule) for item in manifest.optional} if not optional else set()
    return SandboxPolicy(
        connect=tuple(rule for rule in manifest.connect if id(rule) not in left),
        request=tuple(rule for rule in manifest.request if id(rule) not in left),
        paths=tuple(rule for rule in manifest.paths if id(rule) not in left),
        env=manifest.env,
        limits=manifest.limits,
    )
