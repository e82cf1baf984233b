"""Taking capabilities back: at once from every life of a plugin, and with the plugin's process if need be."""

import asyncio
from collections.abc import Iterable

from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.load import Starter
from nyx_stream.host.operations.reload import end_leaving
from nyx_stream.host.runtime.leases import check_capability
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.restarts import Restarts


class Revocations:
    """What one host takes back."""

    def __init__(self, starter: Starter, restarts: Restarts, trail: AuditTrail) -> None:
        self._starter = starter
        self._restarts = restarts
        self._trail = trail

    async def revoke(self, entry: PluginRecord, capability: str | None, reason: str, *, hard: bool) -> None:
        """Takes one capability of a plugin back, or all; see `Handle.revoke`."""
        check_capability(capability)
        _revoke(entry, capability, reason)
        if hard:
            await self._stop(entry, capability, reason)

    async def revoke_all(self, entries: Iterable[PluginRecord], reason: str, *, hard: bool) -> None:
        """Takes everything of several plugins back; see `PluginHost.revoke_all`."""
        leased = [entry for entry in entries if entry.leases is not None]
        for entry in leased:
            _revoke(entry, None, reason)
        if hard:
            await asyncio.gather(*(self._stop(entry, None, reason) for entry in leased))

    async def _stop(self, entry: PluginRecord, capability: str | None, reason: str) -> None:
        """Ends every life of a plugin; unless everything was revoked, gives it another one under the leases it has."""
        self._restarts.forget(entry)
        entry.abandon()
        async with entry.changing:
            await end_leaving(entry)
            await entry.alive().stop()
            self._trail.record(entry.id, "stop", capability or "everything", reason=reason)
            if capability is not None and entry.leases is not None:
                await self._starter.load(entry)


def _revoke(entry: PluginRecord, capability: str | None, reason: str) -> None:
    """Ends the leases of every life: what a reload is about to start has the capability no more either."""
    entry.leased().revoke(capability, reason)
    entry.taken_back.append((capability, reason))
    for life in entry.lives[1:]:
        life.leases.end(capability, reason)
