"""The handle of one loaded plugin, which `PluginHost.load` returns. It stays valid through reloads."""

import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nyx_stream.capabilities.lease import LeaseStatus
from nyx_stream.errors import InvalidResult, PluginStateError, UnknownMethod
from nyx_stream.host.approvals.service import ApprovalService
from nyx_stream.host.approvals.store import ApprovalStatus
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.observability.call_observer import Call, Observer, SafeObserver
from nyx_stream.host.observability.metrics import PluginMetrics, PluginStats, PluginStatus, State
from nyx_stream.host.operations.reload import Reloader
from nyx_stream.host.operations.revoke import Revoker
from nyx_stream.host.operations.update_policy import update_policy
from nyx_stream.host.operations.watch_policy import PolicyWatcher
from nyx_stream.host.runtime.leases import check_capability
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

_T = TypeVar("_T")
_STREAM_TYPES = (AsyncIterator, AsyncGenerator, AsyncIterable)


@dataclass(frozen=True, slots=True)
class HostOperations:
    """The operations of a host that its handles call."""

    audit: AuditTrail
    approvals: ApprovalService
    reloader: Reloader
    revoker: Revoker
    watcher: PolicyWatcher


class Handle:
    """One loaded plugin."""

    __slots__ = ("_operations", "_record")

    def __init__(self, operations: HostOperations, record: PluginRecord) -> None:
        self._operations = operations
        self._record = record

    def __repr__(self) -> str:
        return f"<Handle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self._record.id

    @property
    def state(self) -> State:
        """The plugin's state."""
        return self._record.state

    @property
    def methods(self) -> Mapping[str, bool]:
        """The exported methods by name: whether each is a stream."""
        return self._record.require_run().dispatcher.methods

    @property
    def grant(self) -> Grant:
        """What the plugin requested and what it was granted. Raises `PluginStateError` before its first start."""
        if self._record.run is None:
            raise PluginStateError(self.id, "it has no grant yet")
        return self._record.run.grant

    @property
    def status(self) -> PluginStatus:
        """The plugin's entry in `PluginHost.plugins`, with the traceback if it failed."""
        return self._record.status()

    def stats(self) -> PluginStats:
        """Returns the counts since the plugin was loaded."""
        return self._record.stats(audited=self._operations.audit.sink is not None)

    def metrics(self) -> PluginMetrics:
        """Returns the plugin's metrics, including `stats`. The process is measured now. Can be called on any thread."""
        return self._record.metrics(audited=self._operations.audit.sink is not None)

    def call(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Calls an exported method; `await` gives its result.

        Arguments and result are validated against the method's annotations. A method that returns a model or a
        dataclass gives an instance of the plugin's class at level `inline`, and a dictionary of its fields at level
        `process`. `bind` converts both to a class of the host.

        The call runs in the calling task: cancelling that task cancels the call. Time in the queue counts towards the
        timeout of the grant.

        Raises:
            UnknownMethod, InvalidArguments: the caller is at fault; nothing was started.
            PluginBusy: the queue is full; nothing was started.
            PluginTimeout: the call exceeded `call_timeout` and was cancelled.
            PluginCallError, InvalidResult: the plugin is at fault. The cause is chained.
            SandboxDenied: the guard denied something, and the plugin didn't catch it.
            PluginCrashed: the plugin has failed, or failed during the call. The cause is chained.
            PluginStateError: the plugin is not running, or was stopped during the call.
        """
        return (self._record.dispatcher or self._record.require_run().dispatcher).call(method, arguments)

    def stream(self, method: str, /, **arguments: Any) -> AsyncGenerator[Any, None]:
        """Calls an exported asynchronous generator: `async for item in handle.stream("method")`.

        Each item is validated, and `call_timeout` limits each step. A stream counts as one running call until it
        ends: read it to its end, or close it (`contextlib.aclosing`). Raises as `call`, in the first step.
        """
        return self._record.require_run().dispatcher.stream(method, arguments)

    def bind(self, protocol: Callable[..., _T]) -> _T:
        """Returns an object with the methods of a `Protocol` class, statically typed as that protocol.

        An `async def` method becomes `call`, a `def` that returns an `AsyncIterator` becomes `stream`. Results are
        validated against the protocol too: the host and an isolated plugin share no classes.

        Raises:
            UnknownMethod: the plugin lacks a method of the protocol, or only one of the two is a stream.
            TypeError: `protocol` isn't a class, or its annotations can't be validated.
        """
        if not isinstance(protocol, type):
            raise TypeError(f"{protocol!r} is not a Protocol class")
        methods = {
            name: _bind_method(self, name, member)
            for name, member in inspect.getmembers(protocol, inspect.isfunction)
            if not name.startswith("_")
        }
        return type(f"{protocol.__name__} of {self.id}", (), methods)()  # type: ignore[no-any-return]

    async def update_policy(self, policy: SandboxPolicy | str | os.PathLike[str]) -> None:
        """Puts another policy in force. The next check sees all of it.

        Raises:
            PolicyError: the policy file is wrong; the old policy stays in force.
        """
        await update_policy(self._record, policy, self._operations.audit)
        self._operations.watcher.recheck(self._record)

    async def revoke(self, capability: str | None = None, *, reason: str, hard: bool = False) -> None:
        """Revokes one capability, such as `"http"` or `"files"`, or all of them, until a reload.

        Operations in flight end with `Revoked`, and open files and connections are closed. With `hard` the plugin is
        stopped too, so that it can't keep anything; it is started again without the capability, unless all were
        revoked.

        Raises:
            LookupError: there is no such capability.
            PluginStateError: the plugin was not started, or was unloaded.
            PluginLoadError, PluginSetupError: it didn't start without the capability; it has then failed.
        """
        await self._operations.revoker.revoke(self._record, capability, reason, hard=hard)

    async def lease(self, capability: str, **terms: object) -> LeaseStatus:
        """Sets terms of a capability's lease: `await handle.lease("http", ttl="60s", requests=100)`.

        Other terms stay as they are; `None` removes one. A lease that has ended can't be renewed: a reload begins a new
        one, under the terms of the policy.

        Args:
            capability: such as `"http"` or `"files"`.
            terms: see `LeaseTerms`.

        Raises:
            LookupError: there is no such capability.
            ValueError: it has no such term, or a value doesn't parse.
            PluginStateError: the lease has ended, or the plugin was not started.
        """
        check_capability(capability)
        return self._record.set_lease_terms(capability, terms)

    @property
    def leases(self) -> Mapping[str, LeaseStatus]:
        """The status of each capability's lease. Raises `PluginStateError` if the plugin was not started."""
        return self._record.require_leases().status()

    @property
    def approvals(self) -> tuple[ApprovalStatus, ...]:
        """The optional permissions that were approved while the plugin ran, and hold."""
        return tuple(item.status for item in self._record.approvals.active(self._record.source.content))

    async def forget(self, kind: str | None = None, rule: str | None = None) -> int:
        """Withdraws approvals at once: those of one kind, of one rule of the manifest, or all. Returns how many.

        The plugin may request them again. Files that it opened under them stay open, as after `update_policy`.

        Raises:
            LockError, OSError: they are withdrawn, but the lock file still has them.
        """
        return await self._operations.approvals.forget(self._record, kind, rule)

    async def reload(self) -> None:
        """Reads manifest, code and policy file again, and replaces the running version.

        The new version starts beside the old one, under new leases, and takes new calls. The old version finishes its
        running calls and ends. Returns when it has ended: after `call_timeout` at the latest, when streams that are
        still open are closed.

        Raises as `PluginHost.load`. The old version then continues; a plugin that had failed stays failed.
        """
        await self._operations.reloader.reload(self._record)


def _bind_method(handle: Handle, name: str, member: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method that calls the plugin's method `name` and validates results against the protocol's `member`."""
    from pydantic import TypeAdapter, ValidationError  # as long to import as the host, which needs it here only

    from nyx_stream.isolation.code.exports import validation_errors

    returned = get_type_hints(member, include_extras=True).get("return", Any)
    is_stream = get_origin(returned) in _STREAM_TYPES or returned in _STREAM_TYPES
    exported = handle.methods.get(name)
    if exported is None:
        raise UnknownMethod(handle.id, f"it doesn't export the method {name!r} of the protocol")
    if exported is not is_stream:
        kind = "a stream" if exported else "not a stream"
        raise UnknownMethod(handle.id, f"{name} is {kind}, unlike in the protocol")
    if is_stream:
        returned = (*get_args(returned), Any)[0]
    signature = inspect.signature(member)
    if any(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in signature.parameters.values()
    ):
        raise TypeError(f"{name}: a method of a protocol must name every argument")
    validate = TypeAdapter(returned).validate_python

    def validated(value: Any) -> Any:
        try:
            return validate(value, from_attributes=True)
        except ValidationError as error:
            raise InvalidResult(
                handle.id, f"{name}: the result does not fit the protocol: {validation_errors(error)}"
            ) from error

    def by_name(self: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(self, *args, **kwargs).arguments
        return {key: value for key, value in bound.items() if value is not self}

    async def call(self: object, /, *args: Any, **kwargs: Any) -> Any:
        return validated(await handle.call(name, **by_name(self, args, kwargs)))

    async def stream(self: object, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(handle.stream(name, **by_name(self, args, kwargs))) as items:
            async for item in items:
                yield validated(item)

    method = stream if is_stream else call
    method.__name__ = name
    return method


class ObservedHandle(Handle):
    """A handle that reports each call to an observer. Hosts without one use plain handles, which cost less."""

    __slots__ = ("_observer",)

    def __init__(self, operations: HostOperations, record: PluginRecord, observer: Observer) -> None:
        super().__init__(operations, record)
        self._observer = SafeObserver(observer)

    async def call(self, method: str, /, **arguments: Any) -> Any:
        observer = self._observer
        observation = observer.begin(self._describe_call(method, stream=False))
        observer.enter(observation)
        try:
            result = await super().call(method, **arguments)
        except BaseException as error:
            observer.leave(observation)
            observer.end(observation, error)
            raise
        observer.leave(observation)
        observer.end(observation, None)
        return result

    async def stream(self, method: str, /, **arguments: Any) -> AsyncGenerator[Any, None]:
        observer = self._observer
        observation = observer.begin(self._describe_call(method, stream=True))
        failure: BaseException | None = None
        try:
            async with aclosing(super().stream(method, **arguments)) as items:
                while True:
                    observer.enter(observation)
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                    finally:
                        observer.leave(observation)
                    yield item
        except GeneratorExit:  # the reader closed the stream, which is not a failure
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            observer.end(observation, failure)

    def _describe_call(self, method: str, *, stream: bool) -> Call:
        record = self._record
        known = record.dispatcher is not None and method in record.dispatcher.methods
        return Call(record.id, record.source.manifest.version, record.isolation, method if known else None, stream)
