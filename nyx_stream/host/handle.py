"""What `PluginHost.load` returns: one plugin, as its host sees it. Stays valid through reloads."""

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nyx_stream.capabilities.lease import LeaseStatus
from nyx_stream.errors import PluginStateError
from nyx_stream.host.approvals.store import ApprovalStatus
from nyx_stream.host.observability.metrics import PluginMetrics
from nyx_stream.host.observability.status import PluginStats, PluginStatus
from nyx_stream.host.runtime.leases import check_capability
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

if TYPE_CHECKING:
    from nyx_stream.host.host import PluginHost

_T = TypeVar("_T")


class Handle:
    """One loaded plugin."""

    __slots__ = ("_entry", "_host")

    def __init__(self, host: "PluginHost", entry: PluginRecord) -> None:
        self._host = host
        self._entry = entry

    def __repr__(self) -> str:
        return f"<Handle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self._entry.id

    @property
    def state(self) -> State:
        """Where the plugin stands."""
        return self._entry.state

    @property
    def methods(self) -> Mapping[str, bool]:
        """The exported methods by name: whether each is a stream."""
        return self._entry.alive().dispatcher.methods

    @property
    def grant(self) -> Grant:
        """What the plugin asked for and what it was granted. Raises `PluginStateError` before it was started."""
        if self._entry.grant is None:
            raise PluginStateError(self.id, "it has no grant yet")
        return self._entry.grant

    @property
    def status(self) -> PluginStatus:
        """The plugin's line of the host's listing, with the traceback if it failed."""
        return self._entry.status()

    def stats(self) -> PluginStats:
        """Returns what happened since the plugin was loaded."""
        return self._entry.stats(audited=self._host.audited)

    def metrics(self) -> PluginMetrics:
        """Returns what is measured about the plugin, its `stats` included; of its process, as it is at this moment."""
        return self._entry.metrics(audited=self._host.audited)

    def call(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Calls an exported method; `await` gives its result.

        Arguments and result are validated from the method's annotations. At level `inline` a result is what the method
        returned, an instance of the plugin's own class where that is a model or a dataclass; at level `process` such a
        result is a dictionary of its fields. `bind` makes either a class of the host's.

        The call runs in the calling task, so that cancelling that task cancels it. Waiting for room counts towards the
        timeout of the grant.

        Raises:
            UnknownMethod, InvalidArguments: the caller is at fault; nothing was started.
            PluginBusy: too many calls wait already; nothing was started.
            PluginTimeout: the call outlived `call_timeout` and was cancelled.
            PluginCallError, InvalidResult: the plugin is at fault. The cause is chained.
            SandboxDenied: the plugin ran into its guard and did not catch it.
            PluginCrashed: the plugin has failed, or failed during the call. The cause is chained.
            PluginStateError: the plugin is not running, or was stopped during the call.
        """
        return (self._entry.dispatcher or self._entry.alive().dispatcher).call(method, arguments)

    def stream(self, method: str, /, **arguments: Any) -> AsyncGenerator[Any, None]:
        """Calls an exported asynchronous generator: `async for item in handle.stream("method")`.

        Each item is validated, and `call_timeout` bounds each step. A stream counts as one running call until it
        ends: leave it by its end, or close it (`contextlib.aclosing`). Raises as `call`, in the first step.
        """
        return self._entry.alive().dispatcher.stream(method, arguments)

    def bind(self, protocol: Callable[..., _T]) -> _T:
        """Returns an object with the methods of a `Protocol` class, statically typed as that protocol.

        An `async def` method becomes `call`, a `def` that returns an `AsyncIterator` becomes `stream`. Results are
        validated against the protocol too.

        Raises:
            UnknownMethod: the plugin lacks a method of the protocol, or one is a stream where the other is not.
        """
        from nyx_stream.host.bind import bind  # it brings pydantic

        return bind(self, protocol)

    async def update_policy(self, policy: SandboxPolicy | str | os.PathLike[str]) -> None:
        """Puts another policy in force, without a gap: the next check sees the whole new policy.

        Raises:
            PolicyError: the policy file is wrong; the old policy stays in force.
        """
        await self._host._update_policy(self._entry, policy)

    async def revoke(self, capability: str | None = None, *, reason: str, hard: bool = False) -> None:
        """Takes one capability back, `"http"` or `"files"`, or all, with everything held through it, until a reload.

        What is under way ends with `Revoked`. With `hard` the plugin is stopped besides, and so holds nothing any more;
        it is started again without the capability, unless all were taken.

        Raises:
            LookupError: there is no such capability.
            PluginStateError: the plugin was not started, or was unloaded.
            PluginLoadError, PluginSetupError: it does not start without the capability; it is then failed.
        """
        await self._host._revocations.revoke(self._entry, capability, reason, hard=hard)

    async def lease(self, capability: str, **terms: object) -> LeaseStatus:
        """Sets terms of a capability's lease, from now on: `await handle.lease("http", ttl="60s", requests=100)`.

        Terms that are not named go on as they are; `None` lifts one. A lease that has ended does not come back: a
        reload begins a new one, under the terms of the policy.

        Args:
            capability: `"http"` or `"files"`.
            terms: see `LeaseTerms`.

        Raises:
            LookupError: there is no such capability.
            ValueError: it has no such term, or a value does not parse.
            PluginStateError: the lease has ended, or the plugin was not started.
        """
        check_capability(capability)
        status = self._entry.leased().limit(capability, terms)
        for life in self._entry.lives[1:]:
            life.leases.share(capability, terms)
        return status

    @property
    def leases(self) -> Mapping[str, LeaseStatus]:
        """How the lease of each capability stands. Raises `PluginStateError` if the plugin was not started."""
        return self._entry.leased().status()

    @property
    def approvals(self) -> tuple[ApprovalStatus, ...]:
        """The optional permissions that were approved while the plugin ran, and stand."""
        return tuple(item.status for item in self._entry.approvals.of(self._entry.source.content))

    async def forget(self, kind: str | None = None, rule: str | None = None) -> int:
        """Takes approvals back, at once: those of one kind, of one rule as the manifest has it, or all.

        Returns how many; the plugin may ask again. What was opened under one stays open, as after `update_policy`.

        Raises:
            LockError, OSError: they are taken back now, but the lock file still has them.
        """
        return await self._host._desk.forget(self._entry, kind, rule)

    async def reload(self) -> None:
        """Reads manifest, code and policy file again, and lets what is there now take the place of what runs.

        The new version starts beside the old one; new calls go to it, on leases of its own; the old one finishes the
        calls that are under way, and ends. Returns when it has: after `call_timeout` at the latest, when streams that
        are not read to their end are ended.

        Raises as `PluginHost.load`. The old version then goes on as it was; a plugin that had failed is failed.
        """
        await self._host._reloads.reload(self._entry)
