"""Revokes capabilities from every run of a plugin, and with `hard` ends the plugin's process too."""

import asyncio
from collections.abc import Iterable

from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.restart import Restarter
from nyx_stream.host.operations.start import Starter
from nyx_stream.host.runtime.leases import check_capability
from nyx_stream.host.runtime.plugin_record import PluginRecord


class Revoker:
    """Revokes capabilities of one host's plugins."""

    def __init__(self, starter: Starter, restarter: Restarter, audit: AuditTrail) -> None:
        self._starter = starter
        self._restarter = restarter
        self._audit = audit

    async def revoke(self, record: PluginRecord, capability: str | None, reason: str, *, hard: bool) -> None:
        """Revokes one capability of a plugin, or all; see `Handle.revoke`."""
        check_capability(capability)
        record.revoke(capability, reason)
        if hard:
            await self._stop(record, capability, reason)

    async def revoke_all(self, records: Iterable[PluginRecord], reason: str, *, hard: bool) -> None:
        """Revokes every capability of several plugins; see `PluginHost.revoke_all`."""
        leased = [record for record in records if record.leases is not None]
        for record in leased:
            record.revoke(None, reason)
        if hard:
            await asyncio.gather(*(self._stop(record, None, reason) for record in leased))

    async def _stop(self, record: PluginRecord, capability: str | None, reason: str) -> None:
        """Ends every run of a plugin. Unless everything was revoked, starts it again under its leases."""
        self._restarter.cancel(record)
        record.cancel_next_run()
        async with record.changing:
            await record.stop_draining()
            await record.require_run().stop()
            self._audit.record(record.id, "stop", capability or "everything", reason=reason)
            if capability is not None and record.leases is not None:
                await self._starter.load(record)
