"""The host: loads plugins under policies, keeps them, and leaves nothing behind. No state outside the object."""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nyx_stream.audit import LoggingSink
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.errors import AuditError, PluginError, PluginStateError
from nyx_stream.host.approvals.prompts import Approver
from nyx_stream.host.approvals.service import ApprovalService, lock_of
from nyx_stream.host.handle import Handle
from nyx_stream.host.observability.audit_trail import AuditTarget, AuditTrail, several
from nyx_stream.host.observability.call_observer import ObservedHandle, Observer
from nyx_stream.host.observability.metrics import PluginMetrics
from nyx_stream.host.observability.status import OnFail, PluginStatus
from nyx_stream.host.operations.load import Starter
from nyx_stream.host.operations.read_policy import AnyPolicy
from nyx_stream.host.operations.reload import Reloads
from nyx_stream.host.operations.revoke import Revocations
from nyx_stream.host.operations.update_policy import take_file, update_policy
from nyx_stream.host.operations.watch_policy import Found, PolicyWatches
from nyx_stream.host.runtime.backends import Backends
from nyx_stream.host.runtime.lifecycle import OVER
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.host.runtime.registry import Registry
from nyx_stream.host.runtime.restarts import Restarts
from nyx_stream.isolation.backend import Level
from nyx_stream.policy.limits import parse_duration

if TYPE_CHECKING:
    from nyx_stream.capabilities.http import Network
    from nyx_stream.host.config import PluginOrder

_log = logging.getLogger("nyx.host")


class PluginHost:
    """An asynchronous context manager that holds plugins. Many may live side by side.

    Args:
        audit: path of the audit log; or an `AuditLog`, which stays the caller's to close; or an `AuditSink`, such as a
            `LoggingSink`; or a list of them; or `None`. A sink that raises is counted and told, and breaks nothing.
        data_dir: below it each plugin has its private directory; a directory of the user by default.
        tripwire: whether plugins at level `inline` are refused what goes round their capabilities.
        network: how the HTTP capability reaches the network; for tests and special hosts.
        observer: is told of every call, for traces and the like; see `nyx_stream.observe.otel`.
        approver: an async function that takes a `Question` and returns an `Answer`: whether a plugin gets an optional
            permission that it asks for. Without one, the policy alone says.
        approver_timeout: how long it may take for one question; after that the answer is no.
        lock: path of a lock file: which version and content of each plugin runs, and what was approved.
        worker_cpus: numbers of the processors that workers of level `process` run on; any by default. Linux only.

    Raises:
        ValueError: `approver_timeout` is no duration, or `worker_cpus` are no processors or cannot be chosen here.
    """

    def __init__(
        self,
        *,
        audit: AuditTarget = None,
        data_dir: str | os.PathLike[str] | None = None,
        tripwire: bool = True,
        network: "Network | None" = None,
        observer: Observer | None = None,
        approver: Approver | None = None,
        approver_timeout: str | float = "2m",
        lock: str | os.PathLike[str] | None = None,
        worker_cpus: Iterable[int] | None = None,
    ) -> None:
        self._observer = observer
        self._trail = trail = AuditTrail(audit, {})
        self._levels = Backends(tripwire=tripwire, network=network, worker_cpus=worker_cpus)
        self._orders: tuple[PluginOrder, ...] = ()
        self._desk = ApprovalService(approver, parse_duration(approver_timeout), trail, lock_of(lock))
        self._starter = Starter(trail, self._levels, ImportPaths(), self._crashed, self._desk)
        self._restarts = Restarts(self._starter.load)
        self._reloads = Reloads(self._starter, trail)
        self._revocations = Revocations(self._starter, self._restarts, trail)
        self._watches = PolicyWatches(self._take_policy)
        private = os.path.abspath(os.fspath(data_dir)) if data_dir is not None else None
        self._registry = Registry(self._starter, self._levels, self._watches, self._desk, private, self._handle)
        self._owner: asyncio.Task[Any] | None = None
        self._abort: BaseException | None = None

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        audit: AuditTarget = None,
        network: "Network | None" = None,
        observer: Observer | None = None,
        approver: Approver | None = None,
    ) -> Self:
        """Returns a host for a host file; entering it loads the plugins listed there.

        Args:
            path: the host file.
            audit: where events go besides what the file names.
            network: how the HTTP capability reaches the network; for tests and special hosts.
            observer: is told of every call.
            approver: decides on optional permissions.

        Raises:
            PolicyError: with every fault of the file, and of the policies and manifests that it names.
            OSError: the file cannot be read.
        """
        from nyx_stream.host.config import read_config  # its pydantic models are needed here only

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
        host._trail.keep_in([*named, *sinks, *several(audit)], config.audit_options)
        host._orders = tuple(config.plugins)
        return host

    @property
    def plugins(self) -> Mapping[str, PluginStatus]:
        """Every plugin that was asked for and not unloaded, by id; failed ones with their traceback."""
        return self._registry.statuses()

    @property
    def audited(self) -> bool:
        """Whether decisions are recorded, and so counted."""
        return self._trail.sink is not None

    @property
    def audit_lost(self) -> Mapping[str, int]:
        """Events that were not taken, by the path of a log or the name of a sink. Zero is as it should be."""
        return self._trail.lost

    def metrics(self) -> Mapping[str, PluginMetrics]:
        """Returns what is measured about each plugin, by id. Can be called on any thread."""
        return {entry.id: entry.metrics(audited=self.audited) for entry in self._registry.entries}

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
            policy: what is granted, or a policy file. Without one, nothing is.
            isolation: where it runs.
            on_fail: what follows when it crashes later.
            watch: whether to follow the policy file: what is written to it is in force soon after; if it is wrong,
                the old policy stays, which is logged and recorded. Ends with the plugin, and while it has a policy
                that comes from no file. Needs the extra `watch`.

        Raises:
            WatchUnavailable: the extra `watch` is not installed.
            ValueError: `watch` without a policy file.
            PluginNotFound: there is no such plugin.
            ManifestError, PolicyError: a file is wrong.
            PluginLoadError, PluginSetupError: its code does not import, or its `setup` raised; it stays listed.
            PluginStateError: it is loaded already from another folder, or under another policy or level.
        """
        return await self._registry.load(plugin, policy=policy, isolation=isolation, on_fail=on_fail, watch=watch)

    async def unload(self, plugin: str) -> None:
        """Stops a plugin and forgets it. Raises `PluginNotFound` for one that is not listed."""
        if self._registry.forget_unreadable(plugin):
            return
        entry = self._registry.entry(plugin)
        self._restarts.forget(entry)
        await self._registry.unload(entry)
        self._trail.record(plugin, "unload", entry.source.folder)

    async def approve(self, plugin: str) -> None:
        """Accepts what lies where a plugin is loaded from and its status says is waiting; `reload` then starts it.

        Raises:
            PluginNotFound, PluginStateError: there is no such plugin, or nothing waits.
            ContentChanged: what lies there is not what was refused.
            LockError: the lock file is broken, or cannot be written.
        """
        await self._desk.approve(self._registry.entry(plugin))

    async def revoke_all(self, *, reason: str, hard: bool = False) -> None:
        """Takes every capability of every plugin back at once; with `hard`, stops the plugins too.

        Plugins loaded or reloaded afterwards have theirs.
        """
        await self._revocations.revoke_all(self._registry.entries, reason, hard=hard)

    async def __aenter__(self) -> Self:
        if self._levels.ready:
            raise RuntimeError("this host is in use already")
        self._owner = asyncio.current_task()
        self._trail.open(self._stop_plugins)
        self._levels.open()
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
        """Shuts down to the end, however often this task is cancelled meanwhile; then lets the cancellation through."""
        import anyio  # here, for it takes as long to import as the host

        interrupted: asyncio.CancelledError | None = None
        # Shielded: in a cancelled scope of anyio every wait is cancelled, over and over.
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
        self._levels.close()
        await self._restarts.close()
        await self._watches.aclose()
        await self._registry.end()
        await self._levels.aclose()
        self._registry.clear()
        await self._trail.aclose()

    def _stop_plugins(self, why: AuditError) -> None:
        """Fails every plugin, because what they do is recorded no more."""
        for entry in self._registry.entries:
            for life in entry.lives:
                if life.supervisor.state not in OVER:
                    life.supervisor.crash(PluginStateError(entry.id, f"stopped: {why}"))

    async def _load_order(self, order: "PluginOrder") -> None:
        policy = order.policy_file if order.policy_file is not None else order.policy
        try:
            await self.load(
                order.source.folder if order.source.distribution is None else order.source.manifest.id,
                policy=policy,
                isolation=order.isolation,
                on_fail=order.on_fail,
                watch=order.watch,
            )
        except PluginError as error:
            entry = self._registry.get(order.source.manifest.id)
            if order.on_fail == "abort" or entry is None:
                raise
            _log.error("plugin %s", error)
            if order.on_fail == "restart":
                self._restarts.schedule(entry)

    def _handle(self, entry: PluginRecord) -> Handle:
        return Handle(self, entry) if self._observer is None else ObservedHandle(self, entry, self._observer)

    async def _update_policy(self, entry: PluginRecord, policy: AnyPolicy) -> None:
        await update_policy(entry, policy, self._trail)
        self._watches.stir(entry)

    async def _take_policy(self, entry: PluginRecord, path: str, found: Found, told: str | None) -> str | None:
        return await take_file(entry, path, found, told, self._trail)

    def _crashed(self, entry: PluginRecord, life: PluginRun, error: BaseException) -> None:
        if life is entry.coming:  # it never took a call: the reload that started it tells
            return
        self._trail.record(entry.id, "run", life.source.folder, error)
        _log.error("plugin %s failed: %s", entry.id, life.supervisor.reason)
        if life is not entry.life:  # it was about to end, after a reload
            return
        if entry.on_fail == "restart" and self._levels.ready:
            self._restarts.schedule(entry)
        elif entry.on_fail == "abort" and self._owner is not None and self._abort is None:
            self._abort = life.supervisor.failure()
            self._owner.cancel()
