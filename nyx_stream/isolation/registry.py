"""The capabilities that a plugin can have, one row each.

Theory of operation
-------------------
A capability is a *service*: plain values in, plain values out, and one small set of errors. It decides, counts, and
opens or dials, and it ends with its lease. The plugin doesn't hold the service but a *facade*, written once against the
service's protocol: the only place where a library such as httpx or aiofiles appears. The isolation level chooses how
the facade reaches the service:

    inline             facade ──► service
    process            facade ──► worker binding ─ RPC ─ host binding ──► service

The *worker binding* implements the service's protocol by asking the host. The *host binding* (a `broker.Handler`)
validates what a worker sends, and calls the one service that the plugin has.

Adding a capability means one service, one facade, one pair of RPC bindings, and one row here. The conformance tests
then run over it at every level.

Services, facades and bindings are imported when they are first used: a plugin that makes no HTTP requests doesn't pay
for the import of an HTTP client, and neither side of the RPC imports the other. So the rows name them as text,
`module:name`; a test resolves every one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nyx_stream.capabilities.lease import Lease
    from nyx_stream.isolation.backend import Assignment
    from nyx_stream.isolation.capability_set import CapabilitySet, Shared
    from nyx_stream.isolation.remote.host.broker import Handler
    from nyx_stream.isolation.remote.worker.rpc import CapabilityStub


@dataclass(frozen=True, slots=True)
class Capability:
    """One row.

    Attributes:
        service: makes the service in the host's process, from the assignment, the lease and what plugins share.
        facade: called with a service, makes what the plugin holds; `None`: the plugin's context uses the service.
        host_binding: called with the `CapabilitySet`, makes a `Handler`.
        worker_binding: called with a `CapabilityStub`, makes a service that asks the host.
        leased: whether the capability has a lease, so that it can be limited and revoked.
    """

    service: "Callable[[Assignment, Lease | None, Shared], Any]"
    facade: str | None
    host_binding: str
    worker_binding: str
    leased: bool = True

    def hold(self, service: Any) -> Any:
        """Returns what the plugin holds."""
        return service if self.facade is None else resolve(self.facade)(service)

    def handler(self, capabilities: "CapabilitySet") -> "Handler":
        """Returns the host binding for one worker."""
        handler: Handler = resolve(self.host_binding)(capabilities)
        return handler

    def preload(self) -> None:
        """Imports what a worker uses of the capability, so that workers that are forked later don't import it."""
        resolve(self.worker_binding)
        if self.facade is not None:
            resolve(self.facade)

    def hold_remote(self, stub: "CapabilityStub") -> Any:
        """Returns what the plugin holds in a worker."""
        return self.hold(resolve(self.worker_binding)(stub))


@cache
def resolve(reference: str) -> Any:
    """Imports what a row names as `module:name`."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _http(assignment: "Assignment", lease: Any, shared: "Shared") -> Any:
    import mimetypes

    from nyx_stream.capabilities.http.local_service import LocalHttpService

    if not mimetypes.inited:  # it reads the system's tables, which the plugin's own upload could not
        mimetypes.init()
    return LocalHttpService(assignment.guard, lease, shared.network)


def _files(assignment: "Assignment", lease: Any, _shared: "Shared") -> Any:
    from nyx_stream.capabilities.files.local_service import LocalFileService

    places = assignment.grant.places
    return LocalFileService(assignment.guard, lease, places=places, protected=assignment.import_paths)


def _connect(assignment: "Assignment", lease: Any, shared: "Shared") -> Any:
    from nyx_stream.capabilities.connect.service import LocalConnectService

    return LocalConnectService(assignment.guard, lease, shared.network)


_REMOTE = "nyx_stream.isolation.remote"
REGISTRY: Mapping[str, Capability] = {
    "http": Capability(
        _http,
        facade="nyx_stream.capabilities.http.client:GuardedClient",
        host_binding=f"{_REMOTE}.host.http:HttpHandler",
        worker_binding=f"{_REMOTE}.worker.http:RemoteHttpService",
    ),
    "files": Capability(
        _files,
        facade="nyx_stream.capabilities.files:Files",
        host_binding=f"{_REMOTE}.host.files:FilesHandler",
        worker_binding=f"{_REMOTE}.worker.files:RemoteFileService",
    ),
    "connect": Capability(
        _connect,
        facade="nyx_stream.capabilities.connect.stream:Connect",
        host_binding=f"{_REMOTE}.host.connect:ConnectHandler",
        worker_binding=f"{_REMOTE}.worker.connect:RemoteConnectService",
    ),
    "approval": Capability(
        lambda assignment, _lease, _shared: assignment.ask,
        facade=None,
        host_binding=f"{_REMOTE}.host.approval:ApprovalHandler",
        worker_binding=f"{_REMOTE}.worker.approval:RemoteApproval",
        leased=False,
    ),
}

CAPABILITIES = tuple(name for name, row in REGISTRY.items() if row.leased)
"""The names of the capabilities that can be revoked."""
