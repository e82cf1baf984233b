"""The plugins of one host by their ids: finds what is asked for, loads it and forgets it, one change of each at a time.

Does not know what follows when a plugin fails, nor when the host opens and closes.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

from nyx_stream.errors import ManifestError, PluginLoadError, PluginNotFound, PluginStateError
from nyx_stream.host.approvals.service import ApprovalService
from nyx_stream.host.data_dir import default_data_dir
from nyx_stream.host.discovery import find
from nyx_stream.host.handle import Handle
from nyx_stream.host.observability.status import OnFail, PluginStatus
from nyx_stream.host.operations.folder_watch import require_watchfiles
from nyx_stream.host.operations.load import Starter
from nyx_stream.host.operations.read_policy import AnyPolicy, read_policy
from nyx_stream.host.operations.reload import end_leaving
from nyx_stream.host.operations.watch_policy import PolicyWatches
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.plugin_record import PluginRecord, unreadable
from nyx_stream.isolation.backend import Level, PluginSource
from nyx_stream.policy import SandboxPolicy

_log = logging.getLogger("nyx.host")


class Registry:
    """What one host was asked to load and has not unloaded.

    Args:
        starter: starts the plugins.
        levels: the isolation levels.
        watches: follows policy files.
        desk: has the host's lock file.
        data_dir: below it each plugin has its private directory; a directory of the user if `None`.
        handle: makes the handle of a plugin.
    """

    def __init__(
        self,
        starter: Starter,
        levels: Backends,
        watches: PolicyWatches,
        desk: ApprovalService,
        data_dir: str | None,
        handle: Callable[[PluginRecord], Handle],
    ) -> None:
        self._starter = starter
        self._levels = levels
        self._watches = watches
        self._desk = desk
        self._data_dir = data_dir
        self._handle = handle
        self._entries: dict[str, PluginRecord] = {}
        self._handles: dict[str, Handle] = {}
        self._unreadable: dict[str, PluginStatus] = {}

    @property
    def entries(self) -> tuple[PluginRecord, ...]:
        """Every plugin whose manifest could be read, in the order in which they came. Can be read on any thread."""
        return tuple(self._entries.values())

    def get(self, plugin: str) -> PluginRecord | None:
        """Returns a plugin, or `None` for one that is not listed."""
        return self._entries.get(plugin)

    def entry(self, plugin: str) -> PluginRecord:
        """Returns a plugin. Raises `PluginNotFound` for one that is not listed."""
        if plugin not in self._entries:
            raise PluginNotFound(plugin, "is not loaded")
        return self._entries[plugin]

    def handle(self, plugin: str) -> Handle:
        """Returns the handle of a plugin. Raises `PluginNotFound`."""
        if plugin not in self._handles:
            raise PluginNotFound(plugin, "is not loaded")
        return self._handles[plugin]

    def statuses(self) -> Mapping[str, PluginStatus]:
        """Returns the listing; see `PluginHost.plugins`."""
        return self._unreadable | {name: entry.status() for name, entry in self._entries.items()}

    async def load(
        self,
        plugin: str | os.PathLike[str],
        *,
        policy: AnyPolicy | None,
        isolation: Level,
        on_fail: OnFail,
        watch: bool,
    ) -> Handle:
        """Loads a plugin and returns when it takes calls; see `PluginHost.load`."""
        if watch:
            require_watchfiles()
            if policy is None or isinstance(policy, SandboxPolicy):
                raise ValueError("watch=True follows a policy file: give its path as the policy")
        self._levels.get(plugin, isolation)
        source = await self._find(plugin, isolation)
        given, policy_file = await read_policy(policy)
        entry = self._listed(source, given, isolation, on_fail, policy_file)
        async with entry.changing:
            if not entry.unloaded:
                _must_agree(entry, source.folder, given, isolation)
                if entry.over:
                    entry.source, entry.on_fail = source, on_fail
                    if given is not None:
                        entry.policy, entry.policy_file = given, policy_file
                    entry.end_leases()
                    if watch:
                        self._watches.follow(entry)
                    await self._starter.load(entry)
                elif watch:
                    entry.policy_file = policy_file
                    self._watches.follow(entry)
                return self._handles[entry.id]
        return await self.load(plugin, policy=policy, isolation=isolation, on_fail=on_fail, watch=watch)

    async def unload(self, entry: PluginRecord) -> None:
        """Stops a plugin and forgets it."""
        await self._watches.forget(entry)
        await _end(entry)
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id], self._handles[entry.id]

    def forget_unreadable(self, plugin: str) -> bool:
        """Forgets that something could not be read; returns whether nothing else is known of it."""
        return self._unreadable.pop(plugin, None) is not None and plugin not in self._entries

    async def end(self) -> None:
        """Stops every plugin; they stay listed."""
        results = await asyncio.gather(*map(_end, reversed(self._entries.values())), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("stopping a plugin failed", exc_info=result)

    def clear(self) -> None:
        """Forgets them. Every plugin has been stopped."""
        self._entries.clear()
        self._handles.clear()
        self._unreadable.clear()

    async def _find(self, plugin: str | os.PathLike[str], isolation: Level) -> PluginSource:
        try:
            return await asyncio.to_thread(find, plugin)
        except (ManifestError, PluginLoadError) as error:
            status = unreadable(plugin, isolation, error)
            self._unreadable[status.id] = status
            raise

    def _listed(
        self,
        source: PluginSource,
        policy: SandboxPolicy | None,
        isolation: Level,
        on_fail: OnFail,
        policy_file: str | None,
    ) -> PluginRecord:
        """Returns the entry of what was found, a new one if it has none."""
        name = source.manifest.id
        self._unreadable.pop(name, None)
        self._unreadable.pop(os.path.basename(source.folder), None)
        entry = self._entries.get(name)
        if entry is None:
            data = os.path.join(self._data_dir or default_data_dir(), name)
            entry = PluginRecord(source, policy or SandboxPolicy.locked_down(), isolation, on_fail, data, policy_file)
            entry.lock = self._desk.lock
            self._entries[name] = entry
            self._handles[name] = self._handle(entry)
        return entry


async def _end(entry: PluginRecord) -> None:
    """Stops every life of a plugin, also one that is being started."""
    entry.abandon()
    if entry.supervisor is not None and entry.state is not State.RUNNING:
        entry.supervisor.end()
    async with entry.changing:
        await end_leaving(entry)
        if entry.supervisor is not None:
            await entry.supervisor.stop()
        await entry.approvals.close()
        entry.end_leases()
        entry.unloaded = True


def _must_agree(entry: PluginRecord, folder: str, policy: SandboxPolicy | None, isolation: Level) -> None:
    """Raises `PluginStateError` if a plugin that is loaded is asked for in another way."""
    if entry.source.folder != folder:
        raise PluginStateError(entry.id, f"is loaded already, from {entry.source.folder}")
    if entry.over:
        return
    if entry.isolation != isolation:
        raise PluginStateError(entry.id, f"is loaded already, at level {entry.isolation}")
    if policy is not None and policy != entry.policy:
        raise PluginStateError(entry.id, "is loaded already, under another policy: use update_policy")
