"""Loads and unloads the plugins of one host, and keeps them by their ids."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from nyx_stream.errors import ManifestError, PluginError, PluginLoadError, PluginNotFound, PluginStateError
from nyx_stream.host.discovery import find
from nyx_stream.host.observability.metrics import OnFail, PluginStatus, State
from nyx_stream.host.operations.start import Starter
from nyx_stream.host.operations.update_policy import AnyPolicy, read_policy
from nyx_stream.host.operations.watch_policy import PolicyWatcher, require_watchfiles
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.isolation.backend import Level, PluginSource
from nyx_stream.policy import SandboxPolicy
from nyx_stream.text import escape

if TYPE_CHECKING:
    from nyx_stream.host.lockfile.verification import LockRecorder

_log = logging.getLogger("nyx.host")
_Handle = TypeVar("_Handle")


class PluginRegistry(Generic[_Handle]):
    """The plugins that one host was asked to load and hasn't unloaded.

    Args:
        starter: starts the plugins.
        backends: the isolation backends.
        watcher: watches policy files.
        lock: the host's lock file, if it has one.
        data_dir: the directory of the plugins' private directories.
        make_handle: makes the handle of a plugin.
    """

    def __init__(
        self,
        starter: Starter,
        backends: Backends,
        watcher: PolicyWatcher,
        lock: "LockRecorder | None",
        data_dir: str,
        make_handle: Callable[[PluginRecord], _Handle],
    ) -> None:
        self._starter = starter
        self._backends = backends
        self._watcher = watcher
        self._lock = lock
        self._data_dir = data_dir
        self._make_handle = make_handle
        self._records: dict[str, PluginRecord] = {}
        self._handles: dict[str, _Handle] = {}
        self._unreadable: dict[str, PluginStatus] = {}

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin with a readable manifest, in order of loading. Can be read on any thread."""
        return tuple(self._records.values())

    def get(self, plugin: str) -> PluginRecord | None:
        """Returns a plugin, or `None` if it isn't listed."""
        return self._records.get(plugin)

    def record(self, plugin: str) -> PluginRecord:
        """Returns a plugin. Raises `PluginNotFound` if it isn't listed."""
        if plugin not in self._records:
            raise PluginNotFound(plugin, "is not loaded")
        return self._records[plugin]

    def handle(self, plugin: str) -> _Handle:
        """Returns the handle of a plugin. Raises `PluginNotFound` if it isn't listed."""
        return self._handles[self.record(plugin).id]

    def statuses(self) -> Mapping[str, PluginStatus]:
        """Returns the status of every plugin, by id."""
        return self._unreadable | {name: record.status() for name, record in self._records.items()}

    async def load(
        self,
        plugin: str | os.PathLike[str],
        *,
        policy: AnyPolicy | None,
        isolation: Level,
        on_fail: OnFail,
        watch: bool,
    ) -> _Handle:
        """Loads a plugin and returns when it takes calls; see `PluginHost.load`."""
        if watch:
            require_watchfiles()
            if policy is None or isinstance(policy, SandboxPolicy):
                raise ValueError("watch=True watches a policy file: pass its path as the policy")
        self._backends.get(plugin, isolation)
        source = await self._find(plugin, isolation)
        given, policy_file = await read_policy(policy)
        record = self._list(source, given, isolation, on_fail, policy_file)
        async with record.changing:
            if not record.unloaded:
                _require_same(record, source.folder, given, isolation)
                if record.is_over:
                    record.source, record.on_fail = source, on_fail
                    if given is not None:
                        record.policy, record.policy_file = given, policy_file
                    record.close_leases()
                    if watch:
                        self._watcher.watch(record)
                    await self._starter.load(record)
                elif watch:
                    record.policy_file = policy_file
                    self._watcher.watch(record)
                return self._handles[record.id]
        # It was unloaded while this waited: load it anew.
        return await self.load(plugin, policy=policy, isolation=isolation, on_fail=on_fail, watch=watch)

    async def unload(self, record: PluginRecord) -> None:
        """Stops a plugin and drops it from the list."""
        await self._watcher.unwatch(record)
        await _unload(record)
        if self._records.get(record.id) is record:
            del self._records[record.id], self._handles[record.id]

    def drop_unreadable(self, plugin: str) -> bool:
        """Drops a plugin whose manifest couldn't be read; returns whether there was one, and no loaded one."""
        return self._unreadable.pop(plugin, None) is not None and plugin not in self._records

    async def close(self) -> None:
        """Stops every plugin, in reverse order. They stay listed."""
        results = await asyncio.gather(*map(_unload, reversed(self._records.values())), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("stopping a plugin failed", exc_info=result)

    def clear(self) -> None:
        """Drops every plugin from the list. They must have been stopped."""
        self._records.clear()
        self._handles.clear()
        self._unreadable.clear()

    async def _find(self, plugin: str | os.PathLike[str], isolation: Level) -> PluginSource:
        try:
            return await asyncio.to_thread(find, plugin)
        except (ManifestError, PluginLoadError) as error:
            status = _unreadable_status(plugin, isolation, error)
            self._unreadable[status.id] = status
            raise

    def _list(
        self,
        source: PluginSource,
        policy: SandboxPolicy | None,
        isolation: Level,
        on_fail: OnFail,
        policy_file: str | None,
    ) -> PluginRecord:
        """Returns the record of a plugin; makes it if there is none."""
        name = source.manifest.id
        self._unreadable.pop(name, None)
        self._unreadable.pop(os.path.basename(source.folder), None)
        record = self._records.get(name)
        if record is None:
            policy = policy or SandboxPolicy.locked_down()
            data_dir = os.path.join(self._data_dir, name)
            record = PluginRecord(source, policy, isolation, on_fail, data_dir, policy_file, self._lock)
            self._records[name] = record
            self._handles[name] = self._make_handle(record)
        return record


def _unreadable_status(
    plugin: str | os.PathLike[str], isolation: Level, error: ManifestError | PluginLoadError
) -> PluginStatus:
    """Returns the status of a plugin whose manifest can't be read. Its folder's name stands for its id."""
    folder = os.path.abspath(os.fspath(plugin))
    name = error.plugin if isinstance(error, PluginError) else os.path.basename(folder)
    return PluginStatus(escape(name), State.FAILED, isolation, folder, error=str(error))


async def _unload(record: PluginRecord) -> None:
    """Stops every run of a plugin, including one that is being started."""
    record.cancel_next_run()
    if record.run is not None and record.state is not State.RUNNING:
        record.run.request_stop()
    async with record.changing:
        await record.stop_draining()
        if record.run is not None:
            await record.run.stop()
        await record.approvals.close()
        record.close_leases()
        record.unloaded = True


def _require_same(record: PluginRecord, folder: str, policy: SandboxPolicy | None, isolation: Level) -> None:
    """Raises `PluginStateError` if a loaded plugin is to be loaded from elsewhere, or in another way."""
    if record.source.folder != folder:
        raise PluginStateError(record.id, f"is loaded already, from {record.source.folder}")
    if record.is_over:
        return
    if record.isolation != isolation:
        raise PluginStateError(record.id, f"is loaded already, at level {record.isolation}")
    if policy is not None and policy != record.policy:
        raise PluginStateError(record.id, "is loaded already, under another policy: use update_policy()")
