"""Reloads a plugin: replaces the running version by the version on disk.

Theory of operation: the next run starts beside the current one, with its own guard, leases and backend. Until it takes
calls, nothing of the current run has changed, so an error needs no rollback. Then one assignment makes it the current
run. The old run forwards new calls to it, drains the calls that it has, and ends.
"""

import asyncio
import logging

from nyx_stream.errors import NyxError, PluginLoadError, PluginStateError
from nyx_stream.host.discovery import find
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.start import Starter
from nyx_stream.host.operations.update_policy import describe_error, read_policy
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun

_log = logging.getLogger("nyx.host")


class Reloader:
    """Reloads the plugins of one host."""

    def __init__(self, starter: Starter, audit: AuditTrail) -> None:
        self._starter = starter
        self._audit = audit

    async def reload(self, record: PluginRecord) -> None:
        """Replaces the current run of a plugin; returns when the old run has ended.

        Raises:
            PolicyError, OSError, PluginError: the next version doesn't run; the current one continues.
        """
        async with record.changing:
            if record.unloaded:
                raise PluginStateError(record.id, "it is unloaded")
            record.require_run()
            record.revoked.clear()
            version = record.source.manifest.version
            try:
                await self._replace(record)
            except BaseException as error:
                reason = describe_error(error)
                self._audit.record(record.id, "reload", record.source.folder, error, reason)
                if isinstance(error, NyxError | OSError) and not record.is_over:
                    _log.error("plugin %s: the reload failed, version %s continues: %s", record.id, version, reason)
                raise
            reason = f"{version} was replaced by {record.source.manifest.version}"
            self._audit.record(record.id, "reload", record.source.folder, reason=reason)
            draining = tuple(record.draining.values())
        if draining:  # `wait` doesn't cancel them with this task: the old run finishes its calls
            await asyncio.wait(draining)

    async def _replace(self, record: PluginRecord) -> None:
        source = await asyncio.to_thread(find, record.source.locator)
        if source.manifest.id != record.id:
            raise PluginLoadError(record.id, f"its manifest now has the id {source.manifest.id!r}")
        source = await self._starter.verify(record, source)
        policy = record.policy
        if record.policy_file is not None:
            policy = (await read_policy(record.policy_file))[0] or policy
        if record.is_over:
            await record.require_run().stop()  # it may still be cleaning up
            record.close_leases()
            record.source, record.policy = source, policy
            await self._starter.load(record)
            return
        old, run = record.run, self._starter.prepare(record, source, policy)
        for capability, reason in record.revoked:
            run.leases.end(capability, reason)
        record.next_run = run
        try:
            await self._starter.start(record, run)
            if not run.is_running:  # it failed as it became ready
                raise run.failure()
        except BaseException:
            run.leases.close()
            raise
        finally:
            record.next_run = None
        record.set_run(run)
        if old is not None:
            task = asyncio.get_running_loop().create_task(_retire(record, old, run), name=f"nyx:retire:{record.id}")
            record.draining[old] = task
        record.apply_policy(policy, record.policy_file)  # to the old run, too


async def _retire(record: PluginRecord, old: PluginRun, successor: PluginRun) -> None:
    try:
        await old.retire(successor)
    except Exception as error:
        _log.exception("stopping a plugin failed", exc_info=error)
    finally:
        old.leases.close()
        del record.draining[old]
