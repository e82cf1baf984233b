"""The plugin host: an asynchronous context manager that loads plugins, keeps them, and cleans up after them."""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nyx_stream.audit import LoggingSink
from nyx_stream.errors import AuditError, PluginError, PluginStateError
from nyx_stream.host.approvals.prompts import Approver
from nyx_stream.host.approvals.service import ApprovalService
from nyx_stream.host.handle import Handle, HostOperations, ObservedHandle
from nyx_stream.host.observability.audit_trail import AuditTarget, AuditTrail, as_targets
from nyx_stream.host.observability.call_observer import Observer
from nyx_stream.host.observability.metrics import OnFail, PluginMetrics, PluginStatus
from nyx_stream.host.operations.load import PluginRegistry
from nyx_stream.host.operations.reload import Reloader
from nyx_stream.host.operations.restart import Restarter
from nyx_stream.host.operations.revoke import Revoker
from nyx_stream.host.operations.start import Starter, default_data_dir
from nyx_stream.host.operations.update_policy import AnyPolicy
from nyx_stream.host.operations.watch_policy import PolicyWatcher
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.lifecycle import FINAL
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.isolation.backend import Level
from nyx_stream.policy.limits import parse_duration

if TYPE_CHECKING:
    from nyx_stream.capabilities.http import NetworkBackend
    from nyx_stream.host.config import PluginOrder
    from nyx_stream.host.lockfile.verification import LockRecorder

_log = logging.getLogger("nyx.host")


class PluginHost:
    """An asynchronous context manager that holds plugins. Hosts share no state: a program may have many.

    Args:
        audit: path of the audit log; or an `AuditLog`, which the caller closes; or an `AuditSink`, such as a
            `LoggingSink`; or a list of them; or `None`. A sink that raises is counted and logged, and breaks nothing.
        data_dir: the directory of the plugins' private directories; a directory of the user by default.
        tripwire: whether the tripwire refuses what bypasses the capabilities of plugins at level `inline`.
        network: how the HTTP capability reaches the network; for tests and special hosts.
        observer: gets every call, for traces and the like; see `nyx_stream.observe.otel`.
        approver: an async function that takes a `Question` and returns an `Answer`: whether a plugin gets an optional
            permission that it requests. Without one, only the policy decides.
        approver_timeout: the time to answer one question. A late answer counts as a refusal.
        lock: path of a lock file, which records the version and content of each plugin, and its approvals.
        worker_cpus: numbers of the processors on which workers of level `process` run; any by default. Linux only.

    Raises:
        ValueError: `approver_timeout` isn't a duration, or this system can't run workers on `worker_cpus`.
    """

    def __init__(
        self,
        *,
        audit: AuditTarget = None,
        data_dir: str | os.PathLike[str] | None = None,
        tripwire: bool = True,
        network: "NetworkBackend | None" = None,
        observer: Observer | None = None,
        approver: Approver | None = None,
        approver_timeout: str | float = "2m",
        lock: str | os.PathLike[str] | None = None,
        worker_cpus: Iterable[int] | None = None,
    ) -> None:
        self._observer = observer
        self._audit = audit_trail = AuditTrail(audit, {})
        self._backends = Backends(tripwire=tripwire, network=network, worker_cpus=worker_cpus)
        lock_recorder = _lock_recorder(lock)
        approvals = ApprovalService(approver, parse_duration(approver_timeout), audit_trail, lock_recorder)
        self._starter = Starter(audit_trail, self._backends, approvals, lock_recorder, self._on_crash)
        self._restarter = Restarter(self._starter)
        self._revoker = Revoker(self._starter, self._restarter, audit_trail)
        self._watcher = PolicyWatcher(audit_trail)
        reloader = Reloader(self._starter, audit_trail)
        self._operations = HostOperations(audit_trail, approvals, reloader, self._revoker, self._watcher)
        plugin_dirs = os.path.abspath(os.fspath(data_dir)) if data_dir is not None else default_data_dir()
        self._registry = PluginRegistry(
            self._starter, self._backends, self._watcher, lock_recorder, plugin_dirs, self._make_handle
        )
        self._orders: tuple[PluginOrder, ...] = ()
        self._owner: asyncio.Task[Any] | None = None
        self._abort: BaseException | None = None

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        audit: AuditTarget = None,
        network: "NetworkBackend | None" = None,
        observer: Observer | None = None,
        approver: Approver | None = None,
    ) -> Self:
        """Returns a host for a host file; entering it loads the plugins listed there.

        Args:
            path: the host file.
            audit: where events go in addition to what the file names.
            network: how the HTTP capability reaches the network; for tests and special hosts.
            observer: gets every call.
            approver: decides on optional permissions.

        Raises:
            PolicyError: it has every fault of the file, and of the policies and manifests that it names.
            OSError: the file can't be read.
        """
        from nyx_stream.host.config import read_config  # its pydantic models are needed for a host file only

        config = read_config(path)
        host = cls(
            data_dir=config.data_dir,
            tripwire=config.tripwire,
            network=network,
            observer=observer,
            approver=approver,
            lock=config.lock,
            worker_cpus=config.worker_cpus,
        )
        named = [config.audit] if config.audit is not None else []
        sinks = [LoggingSink(keep_queries=config.audit_options.get("keep_queries", False))] if config.logging else []
        host._audit.configure([*named, *sinks, *as_targets(audit)], config.audit_options)
        host._orders = tuple(config.plugins)
        return host

    @property
    def plugins(self) -> Mapping[str, PluginStatus]:
        """The status of every plugin that was loaded and not unloaded, by id; failed ones with their traceback."""
        return self._registry.statuses()

    @property
    def audited(self) -> bool:
        """Whether decisions are recorded, and so denials counted."""
        return self._audit.sink is not None

    @property
    def audit_lost(self) -> Mapping[str, int]:
        """The number of events lost, by the path of a log or the name of a sink. It should be zero."""
        return self._audit.lost

    def metrics(self) -> Mapping[str, PluginMetrics]:
        """Returns the metrics of each plugin, by id. Can be called on any thread."""
        return {record.id: record.metrics(audited=self.audited) for record in self._registry.records}

    def __getitem__(self, plugin: str) -> Handle:
        """Returns the handle of a plugin by its id. Raises `PluginNotFound`, a `LookupError`."""
        return self._registry.handle(plugin)

    async def load(
        self,
        plugin: str | os.PathLike[str],
        *,
        policy: AnyPolicy | None = None,
        isolation: Level = "inline",
        on_fail: OnFail = "disable",
        watch: bool = False,
    ) -> Handle:
        """Loads a plugin and returns when it takes calls. Loading a running plugin again returns the same handle.

        Args:
            plugin: a plugin folder, or the id of an installed plugin.
            policy: what is granted, or a policy file. Without one, nothing is granted.
            isolation: the level at which it runs.
            on_fail: what the host does when it crashes later.
            watch: whether to watch the policy file: a change is in force soon after; if the file is wrong, the old
                policy stays, and the error is logged and audited. Needs the extra `watch`. The watch ends when the
                plugin is unloaded, and pauses while its policy doesn't come from a file.

        Raises:
            WatchUnavailable: the extra `watch` is not installed.
            ValueError: `watch` without a policy file.
            PluginNotFound: there is no such plugin.
            ManifestError, PolicyError: a file is wrong.
            PluginLoadError, PluginSetupError: its code doesn't import, or its `setup` raised; it stays listed.
            PluginStateError: it is loaded already from another folder, or under another policy or level.
        """
        return await self._registry.load(plugin, policy=policy, isolation=isolation, on_fail=on_fail, watch=watch)

    async def unload(self, plugin: str) -> None:
        """Stops a plugin and removes it from `plugins`. Raises `PluginNotFound` if it isn't listed."""
        if self._registry.drop_unreadable(plugin):
            return
        record = self._registry.record(plugin)
        self._restarter.cancel(record)
        await self._registry.unload(record)
        self._audit.record(plugin, "unload", record.source.folder)

    async def approve(self, plugin: str) -> None:
        """Accepts the update of a plugin that is waiting according to its status. `Handle.reload` then starts it.

        Raises:
            PluginNotFound, PluginStateError: there is no such plugin, or no update is waiting.
            ContentChanged: the files on disk have changed since the update was refused.
            LockError: the lock file is broken, or can't be written.
        """
        await self._starter.accept_update(self._registry.record(plugin))

    async def revoke_all(self, *, reason: str, hard: bool = False) -> None:
        """Revokes every capability of every plugin at once; with `hard`, stops the plugins too.

        Plugins that are loaded or reloaded afterwards get theirs.
        """
        await self._revoker.revoke_all(self._registry.records, reason, hard=hard)

    async def __aenter__(self) -> Self:
        if self._backends.is_open:
            raise RuntimeError("this host is in use already")
        self._owner = asyncio.current_task()
        self._audit.open(self._stop_plugins)
        self._backends.open()
        try:
            for order in self._orders:
                await self._load_order(order)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._close()
        finally:
            if self._abort is not None and self._owner is not None:
                abort, self._abort = self._abort, None
                if self._owner.uncancel() == 0:
                    raise abort

    async def _close(self) -> None:
        """Shuts down completely even if this task is cancelled meanwhile; then raises the cancellation."""
        import anyio  # imported here: its import takes as long as the host's

        interrupted: asyncio.CancelledError | None = None
        # Shielded: in a cancelled scope of anyio, every wait is cancelled again.
        with anyio.CancelScope(shield=True):
            closing = asyncio.ensure_future(self._shut_down())
            while not closing.done():
                try:
                    await asyncio.wait((closing,))
                except asyncio.CancelledError as error:
                    interrupted = error
        closing.result()
        if interrupted is not None:
            raise interrupted

    async def _shut_down(self) -> None:
        self._backends.close()
        await self._restarter.close()
        await self._watcher.aclose()
        await self._registry.close()
        await self._backends.aclose()
        self._registry.clear()
        await self._audit.aclose()

    def _stop_plugins(self, why: AuditError) -> None:
        """Fails every plugin, because their decisions can't be recorded any more."""
        for record in self._registry.records:
            for run in record.runs:
                if run.state not in FINAL:
                    run.crash(PluginStateError(record.id, f"stopped: {why}"))

    async def _load_order(self, order: "PluginOrder") -> None:
        policy = order.policy_file if order.policy_file is not None else order.policy
        try:
            await self.load(
                order.source.locator,
                policy=policy,
                isolation=order.isolation,
                on_fail=order.on_fail,
                watch=order.watch,
            )
        except PluginError as error:
            record = self._registry.get(order.source.manifest.id)
            if order.on_fail == "abort" or record is None:
                raise
            _log.error("plugin %s", error)
            if order.on_fail == "restart":
                self._restarter.schedule(record)

    def _make_handle(self, record: PluginRecord) -> Handle:
        if self._observer is None:
            return Handle(self._operations, record)
        return ObservedHandle(self._operations, record, self._observer)

    def _on_crash(self, record: PluginRecord, run: PluginRun, error: BaseException) -> None:
        if run is record.next_run:  # it never took a call: the reload that started it raises the error
            return
        self._audit.record(record.id, "run", run.source.folder, error)
        _log.error("plugin %s failed: %s", record.id, run.reason)
        if run is not record.run:  # it was draining after a reload
            return
        if record.on_fail == "restart" and self._backends.is_open:
            self._restarter.schedule(record)
        elif record.on_fail == "abort" and self._owner is not None and self._abort is None:
            self._abort = run.failure()
            self._owner.cancel()


def _lock_recorder(path: str | os.PathLike[str] | None) -> "LockRecorder | None":
    if path is None:
        return None
    from nyx_stream.host.lockfile.verification import (
        LockRecorder,
    )  # its pydantic models are needed with a lock file only

    return LockRecorder(path)
