"""The host: loads plugins under policies, keeps them, and leaves nothing behind. No state outside the object."""

import asyncio
import logging
import os
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nyx_stream.audit import LoggingSink
from nyx_stream.audit.event import Kind
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.errors import AuditError, ManifestError, PluginError, PluginLoadError, PluginNotFound, PluginStateError
from nyx_stream.guard import SandboxGuard
from nyx_stream.host.data_dir import default_data_dir, make_private
from nyx_stream.host.discovery import find
from nyx_stream.host.entry import Entry, unreadable
from nyx_stream.host.handle import Handle
from nyx_stream.host.leases import Leases, check_capability
from nyx_stream.host.lifecycle import OVER, Event
from nyx_stream.host.metrics import PluginMetrics
from nyx_stream.host.observing import ObservedHandle, Observer
from nyx_stream.host.policies import AnyPolicy, read_policy
from nyx_stream.host.restart import Restarts
from nyx_stream.host.status import OnFail, PluginStatus
from nyx_stream.host.supervisor import Supervisor
from nyx_stream.host.trail import AuditTarget, Trail, several
from nyx_stream.isolation.inline import InlineLevel
from nyx_stream.isolation.provision import Shared
from nyx_stream.isolation.seam import Assignment, Level, LevelFactory
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

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
    """

    def __init__(
        self,
        *,
        audit: AuditTarget = None,
        data_dir: str | os.PathLike[str] | None = None,
        tripwire: bool = True,
        network: "Network | None" = None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._trail = Trail(audit, {})
        self._data_dir = os.path.abspath(os.fspath(data_dir)) if data_dir is not None else None
        self._shared = Shared(network)
        self._import_paths = ImportPaths()
        self._tripwire = tripwire
        self._orders: tuple[PluginOrder, ...] = ()
        self._levels: dict[Level, LevelFactory] = {}
        self._entries: dict[str, Entry] = {}
        self._handles: dict[str, Handle] = {}
        self._unreadable: dict[str, PluginStatus] = {}
        self._restarts = Restarts(self._start)
        self._owner: asyncio.Task[Any] | None = None
        self._abort: BaseException | None = None
        self._open = False

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        audit: AuditTarget = None,
        network: "Network | None" = None,
        observer: Observer | None = None,
    ) -> Self:
        """Returns a host for a host file; entering it loads the plugins listed there.

        Args:
            path: the host file.
            audit: where events go besides what the file names.
            network: how the HTTP capability reaches the network; for tests and special hosts.
            observer: is told of every call.

        Raises:
            PolicyError: with every fault of the file, and of the policies and manifests that it names.
            OSError: the file cannot be read.
        """
        from nyx_stream.host.config import read_config  # its pydantic models are needed here only

        config = read_config(path)
        host = cls(data_dir=config.data_dir, tripwire=config.tripwire, network=network, observer=observer)
        named = [config.audit] if config.audit is not None else []
        sinks = [LoggingSink(keep_queries=config.audit_options.get("keep_queries", False))] if config.logging else []
        host._trail = Trail([*named, *sinks, *several(audit)], config.audit_options)
        host._orders = tuple(config.plugins)
        return host

    @property
    def plugins(self) -> Mapping[str, PluginStatus]:
        """Every plugin that was asked for and not unloaded, by id; failed ones with their traceback."""
        return self._unreadable | {name: entry.status() for name, entry in self._entries.items()}

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
        return {entry.id: entry.metrics(audited=self.audited) for entry in tuple(self._entries.values())}

    def __getitem__(self, plugin: str) -> Handle:
        """Returns the handle of a plugin by its id. Raises `PluginNotFound`, a `LookupError`."""
        if plugin not in self._handles:
            raise PluginNotFound(plugin, "is not loaded")
        return self._handles[plugin]

    async def load(
        self,
        plugin: str | os.PathLike[str],
        *,
        policy: AnyPolicy | None = None,
        isolation: Level = "inline",
        on_fail: OnFail = "disable",
    ) -> Handle:
        """Loads a plugin and returns when it takes calls. Loading a running plugin again returns the same handle.

        Args:
            plugin: a plugin folder, or the id of an installed plugin.
            policy: what is granted, or a policy file. Without one, nothing is.
            isolation: where it runs.
            on_fail: what follows when it crashes later.

        Raises:
            PluginNotFound: there is no such plugin.
            ManifestError, PolicyError: a file is wrong.
            PluginLoadError, PluginSetupError: its code does not import, or its `setup` raised; it stays listed.
            PluginStateError: it is loaded already from another folder, or under another policy or level.
        """
        factory = self._level(plugin, isolation)
        try:
            source = await asyncio.to_thread(find, plugin)
        except (ManifestError, PluginLoadError) as error:
            status = unreadable(plugin, isolation, error)
            self._unreadable[status.id] = status
            raise
        given, policy_file = await read_policy(policy)
        name = source.manifest.id
        self._unreadable.pop(name, None)
        self._unreadable.pop(os.path.basename(source.folder), None)
        entry = self._entries.get(name)
        if entry is None:
            data = os.path.join(self._data_dir or default_data_dir(), name)
            entry = Entry(source, given or SandboxPolicy.locked_down(), isolation, on_fail, data, policy_file)
            self._entries[name] = entry
            self._handles[name] = (
                Handle(self, entry) if self._observer is None else ObservedHandle(self, entry, self._observer)
            )
        async with entry.changing:
            _must_agree(entry, source.folder, given, isolation)
            if entry.over:
                entry.source, entry.on_fail = source, on_fail
                if given is not None:
                    entry.policy, entry.policy_file = given, policy_file
                entry.end_leases()
                await self._start(entry, factory)
        return self._handles[name]

    async def unload(self, plugin: str) -> None:
        """Stops a plugin and forgets it. Raises `PluginNotFound` for one that is not listed."""
        if self._unreadable.pop(plugin, None) is not None and plugin not in self._entries:
            return
        entry = self._entries.get(plugin)
        if entry is None:
            raise PluginNotFound(plugin, "is not loaded")
        self._restarts.forget(entry)
        async with entry.changing:
            if entry.supervisor is not None:
                await entry.supervisor.stop()
            entry.end_leases()
            if self._entries.get(plugin) is entry:
                del self._entries[plugin], self._handles[plugin]
        self._record(plugin, "unload", entry.source.folder)

    async def revoke_all(self, *, reason: str, hard: bool = False) -> None:
        """Takes every capability of every plugin back at once; with `hard`, stops the plugins too.

        Plugins loaded or reloaded afterwards have theirs.
        """
        entries = [entry for entry in self._entries.values() if entry.leases is not None]
        for entry in entries:
            entry.leased().revoke(None, reason)
        if hard:
            await asyncio.gather(*(self._revoke_hard(entry, None, reason) for entry in entries))

    async def __aenter__(self) -> Self:
        if self._open:
            raise RuntimeError("this host is in use already")
        self._owner = asyncio.current_task()
        self._trail.open(self._stop_plugins)
        self._levels = {"inline": InlineLevel(armed=self._tripwire, shared=self._shared)}
        self._open = True
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
        self._open = False
        await self._restarts.close()
        lives = [entry.supervisor for entry in self._entries.values() if entry.supervisor is not None]
        results = await asyncio.gather(*(life.stop() for life in reversed(lives)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("stopping a plugin failed", exc_info=result)
        for entry in self._entries.values():
            entry.end_leases()
        for level in self._levels.values():
            await level.aclose()
        self._levels = {}
        self._entries.clear()
        self._handles.clear()
        self._unreadable.clear()
        await self._trail.aclose()

    def _stop_plugins(self, why: AuditError) -> None:
        """Fails every plugin, because what they do is recorded no more."""
        for entry in list(self._entries.values()):
            life = entry.supervisor
            if life is not None and life.state not in OVER:
                life.crash(PluginStateError(entry.id, f"stopped: {why}"))

    async def _load_order(self, order: "PluginOrder") -> None:
        policy = order.policy_file if order.policy_file is not None else order.policy
        try:
            await self.load(
                order.source.folder if order.source.distribution is None else order.source.manifest.id,
                policy=policy,
                isolation=order.isolation,
                on_fail=order.on_fail,
            )
        except PluginError as error:
            entry = self._entries.get(order.source.manifest.id)
            if order.on_fail == "abort" or entry is None:
                raise
            _log.error("plugin %s", error)
            if order.on_fail == "restart":
                self._restarts.schedule(entry)

    def _level(self, plugin: str | os.PathLike[str], isolation: Level) -> LevelFactory:
        name = os.path.basename(os.fspath(plugin))
        if not self._open:
            raise PluginStateError(name, "the host is not entered, or is closed")
        if isolation == "process" and isolation not in self._levels:
            from nyx_stream.isolation.process.process import ProcessLevel  # a host without one need not import it

            self._levels[isolation] = ProcessLevel(shared=self._shared)
        if isolation not in self._levels:
            known = "inline, process"
            raise PluginLoadError(name, f"isolation level {isolation!r} is not available; there is: {known}")
        return self._levels[isolation]

    async def _start(self, entry: Entry, factory: LevelFactory | None = None) -> None:
        """Gives an entry a new life, under its leases if it has some. Call it with `entry.changing` held."""
        if factory is None or not self._open:  # the host may have been closed while this load waited
            factory = self._level(entry.source.folder, entry.isolation)
        self._trail.must_take(entry.id)
        grant = Grant.of(entry.source.manifest, entry.policy, entry.places)
        sink = entry.counting(self._trail.sink)
        guard = SandboxGuard(entry.policy, manifest=entry.source.manifest, places=entry.places, audit=sink)
        self._import_paths.protect(entry.source.imported_paths)
        life = Supervisor(entry.id, grant.limits, entry.count, lambda error: self._crashed(entry, error))
        entry.supervisor, entry.guard, entry.grant = life, guard, grant
        if entry.leases is None:
            entry.leases = Leases(entry.id, entry.policy, partial(self._leased, entry.id), entry.tally)
        try:
            if entry.wants_data:
                await asyncio.to_thread(make_private, entry.data)
            life.life.happen(Event.LOAD)
            leases = entry.leases.by_name
            entry.level = factory.isolate(
                Assignment(entry.source, grant, guard, sink, leases, self._import_paths, crashed=life.crash)
            )
            await life.start(entry.level)
        except OSError as error:
            failure = PluginLoadError(entry.id, f"its data directory cannot be made: {error}")
            life.fail(failure)
            self._record(entry.id, "load", entry.source.folder, failure)
            raise failure from error
        except PluginError as error:
            self._record(entry.id, "load", entry.source.folder, error)
            raise
        self._record(entry.id, "load", entry.source.folder)

    async def _reload(self, entry: Entry) -> None:
        async with entry.changing:
            await entry.alive().stop()
            where = entry.source.folder if entry.source.distribution is None else entry.id
            source = await asyncio.to_thread(find, where)
            if source.manifest.id != entry.id:
                raise PluginLoadError(entry.id, f"its manifest now has the id {source.manifest.id!r}")
            if entry.policy_file is not None:
                entry.policy = (await read_policy(entry.policy_file))[0] or entry.policy
            entry.source = source
            entry.end_leases()
            await self._start(entry)

    async def _update_policy(self, entry: Entry, policy: AnyPolicy) -> None:
        given, policy_file = await read_policy(policy)
        async with entry.changing:
            level, guard = entry.running()
            if given is None:
                return
            grant = Grant.of(entry.source.manifest, given, entry.places)
            guard.update(given)
            level.update(grant)
            entry.alive().resize(grant.limits)
            entry.leased().follow(entry.policy, given)
            entry.policy, entry.policy_file, entry.grant = given, policy_file, grant
            self._record(entry.id, "update_policy", policy_file or "a new policy", kind="policy")

    async def _revoke(self, entry: Entry, capability: str | None, reason: str, *, hard: bool) -> None:
        check_capability(capability)
        entry.leased().revoke(capability, reason)
        if hard:
            await self._revoke_hard(entry, capability, reason)

    async def _revoke_hard(self, entry: Entry, capability: str | None, reason: str) -> None:
        """Ends this life of a plugin; unless everything was revoked, gives it another one under the leases it has."""
        self._restarts.forget(entry)
        async with entry.changing:
            await entry.alive().stop()
            self._record(entry.id, "stop", capability or "everything", reason=reason)
            if capability is not None and entry.leases is not None:
                await self._start(entry)

    def _leased(self, plugin: str, action: str, capability: str, reason: str) -> None:
        self._record(plugin, action, capability, reason=reason, kind="revocation")

    def _crashed(self, entry: Entry, error: BaseException) -> None:
        self._record(entry.id, "run", entry.source.folder, error)
        _log.error("plugin %s failed: %s", entry.id, entry.alive().reason)
        if entry.on_fail == "restart" and self._open:
            self._restarts.schedule(entry)
        elif entry.on_fail == "abort" and self._owner is not None and self._abort is None:
            self._abort = entry.alive().failure()
            self._owner.cancel()

    def _record(
        self,
        plugin: str,
        action: str,
        target: str,
        error: BaseException | None = None,
        reason: str = "",
        kind: Kind = "lifecycle",
    ) -> None:
        self._trail.record(plugin, action, target, error, reason, kind)


def _must_agree(entry: Entry, folder: str, policy: SandboxPolicy | None, isolation: Level) -> None:
    """Raises `PluginStateError` if a plugin that is loaded is asked for in another way."""
    if entry.source.folder != folder:
        raise PluginStateError(entry.id, f"is loaded already, from {entry.source.folder}")
    if entry.over:
        return
    if entry.isolation != isolation:
        raise PluginStateError(entry.id, f"is loaded already, at level {entry.isolation}")
    if policy is not None and policy != entry.policy:
        raise PluginStateError(entry.id, "is loaded already, under another policy: use update_policy")
