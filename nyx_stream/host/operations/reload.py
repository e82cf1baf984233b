"""Reloading: the next version of a plugin starts beside the present one, takes its calls, and only then ends it.

Whatever is wrong with the next version leaves the present one as it is.
"""

import asyncio
import logging

from nyx_stream.errors import NyxError, PluginLoadError, PluginStateError
from nyx_stream.host.discovery import find
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.load import Starter
from nyx_stream.host.operations.read_policy import read_policy, told
from nyx_stream.host.operations.update_policy import put_in_force
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.isolation.backend import PluginSource

_log = logging.getLogger("nyx.host")


def must_replace(entry: PluginRecord, source: PluginSource) -> None:
    """Decides whether what was found where a plugin lies may take the place of the version that runs.

    Raises:
        PluginLoadError: it may not; the version that runs goes on.
    """
    if source.manifest.id != entry.id:
        raise PluginLoadError(entry.id, f"its manifest now has the id {source.manifest.id!r}")


class Reloads:
    """The reloads of one host."""

    def __init__(self, starter: Starter, trail: AuditTrail) -> None:
        self._starter = starter
        self._trail = trail

    async def reload(self, entry: PluginRecord) -> None:
        """Replaces the present life of a plugin; returns when nothing of the old one is left.

        Raises:
            PolicyError, OSError, PluginError: the next version does not run; the present one goes on.
        """
        async with entry.changing:
            if entry.unloaded:
                raise PluginStateError(entry.id, "it is unloaded")
            entry.alive()
            entry.taken_back.clear()
            before = entry.source.manifest.version
            try:
                await self._replace(entry)
            except BaseException as error:
                self._trail.record(entry.id, "reload", entry.source.folder, error, told(error))
                if isinstance(error, NyxError | OSError) and not entry.over:
                    _log.error("plugin %s: not reloaded, %s goes on: %s", entry.id, before, told(error))
                raise
            reason = f"{before} was replaced by {entry.source.manifest.version}"
            self._trail.record(entry.id, "reload", entry.source.folder, reason=reason)
            leaving = tuple(entry.leaving.values())
        if leaving:  # shielded by `wait`: whoever ends this task does not end the old life's calls
            await asyncio.wait(leaving)

    async def _replace(self, entry: PluginRecord) -> None:
        where = entry.source.folder if entry.source.distribution is None else entry.id
        source = await asyncio.to_thread(find, where)
        must_replace(entry, source)
        source = await self._starter.admit(entry, source)
        policy = entry.policy
        if entry.policy_file is not None:
            policy = (await read_policy(entry.policy_file))[0] or policy
        if entry.over:
            await entry.alive().stop()  # it may still be cleaning up
            entry.end_leases()
            entry.source, entry.policy = source, policy
            await self._starter.load(entry)
            return
        old, life = entry.life, self._starter.prepare(entry, source, policy)
        for capability, reason in entry.taken_back:
            life.leases.end(capability, reason)
        entry.coming = life
        try:
            await self._starter.start(entry, life)
            if not life.running:  # it failed in the moment in which it became ready
                raise life.supervisor.failure()
        except BaseException:
            life.leases.close()
            raise
        finally:
            entry.coming = None
        entry.take(life)
        if old is not None:
            task = asyncio.get_running_loop().create_task(_retire(entry, old, life), name=f"nyx:retire:{entry.id}")
            entry.leaving[old] = task
        put_in_force(entry, policy, entry.policy_file)  # in the life that leaves, too


async def end_leaving(entry: PluginRecord) -> None:
    """Ends at once what finishes its calls after a reload."""
    for life in entry.leaving:
        life.supervisor.end()
    if entry.leaving:
        await asyncio.wait(tuple(entry.leaving.values()))


async def _retire(entry: PluginRecord, old: PluginRun, successor: PluginRun) -> None:
    try:
        await old.supervisor.retire(successor.supervisor)
    except Exception as error:
        _log.exception("stopping a plugin failed", exc_info=error)
    finally:
        old.leases.close()
        del entry.leaving[old]
