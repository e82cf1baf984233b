"""Making the capabilities of one plugin, on first use, and ending them. Knows no isolation level."""

import inspect
import mimetypes
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nyx_stream.attribution import as_host
from nyx_stream.capabilities.lease import Lease
from nyx_stream.isolation.backend import CAPABILITIES, Assignment

if TYPE_CHECKING:
    from nyx_stream.capabilities.connect.service import GuardedConnect
    from nyx_stream.capabilities.files import GuardedFiles
    from nyx_stream.capabilities.http import Network
    from nyx_stream.capabilities.http.local_service import LocalHttpService


class Shared:
    """What the capabilities of all plugins of one host have in common: one way to the network, one TLS context."""

    def __init__(self, network: "Network | None" = None) -> None:
        self._network = network

    @property
    def network(self) -> "Network":
        """The host's network, made on first use."""
        if self._network is None:
            from nyx_stream.capabilities.http import Network

            self._network = Network()
        return self._network


# Each imports its capability when it is first made: a plugin without HTTP costs no import of an HTTP client.
def _http(assignment: Assignment, lease: Lease, shared: Shared) -> "LocalHttpService":
    from nyx_stream.capabilities.http.local_service import LocalHttpService

    # Whoever posts a file by its name has the system's table of types read: by the host, now.
    if not mimetypes.inited:
        mimetypes.init()
    return LocalHttpService(assignment.guard, lease, shared.network)


def _files(assignment: Assignment, lease: Lease, shared: Shared) -> "GuardedFiles":  # noqa: ARG001  # as all makers
    from nyx_stream.capabilities.files import GuardedFiles

    return GuardedFiles(
        assignment.guard,
        lease,
        places=assignment.grant.places,
        protected=assignment.import_paths,
    )


def _connect(assignment: Assignment, lease: Lease, shared: Shared) -> "GuardedConnect":
    from nyx_stream.capabilities.connect.service import GuardedConnect

    return GuardedConnect(assignment.guard, lease, shared.network)


_MAKERS: Mapping[str, Callable[[Assignment, Lease, Shared], Any]] = {
    "http": _http,
    "files": _files,
    "connect": _connect,
}


class CapabilitySet:
    """The capabilities of one life of a plugin, on leases of their own below those of its grant."""

    def __init__(self, assignment: Assignment, shared: Shared) -> None:
        self._assignment = assignment
        self._shared = shared
        self._leases = {name: assignment.leases[name].child() for name in CAPABILITIES}
        self._made: dict[str, Any] = {}
        self._facades: dict[str, Any] = {}

    def bind(self) -> None:
        """Opens the granted directories, before any code of the plugin runs: the grant is what stands there now.

        To be called again when the policy has changed.
        """
        granted = self._assignment.grant.manifest.paths and self._assignment.guard.policy.merged().paths
        if granted and not self._leases["files"].ended:
            files = self.get("files")
            with as_host():
                files.bind()

    def get(self, name: str) -> Any:
        """Returns the capability as a plugin holds it, made on first use; one that is revoked later refuses by itself.

        Raises:
            Revoked: it was revoked before it was ever made.
        """
        if name != "http":
            return self.service(name)
        if name not in self._facades:
            with as_host():
                from nyx_stream.capabilities.http import GuardedClient

                self._facades[name] = GuardedClient(self.service(name))
        return self._facades[name]

    def service(self, name: str) -> Any:
        """Returns the service behind a capability, made on first use. Raises as `get`."""
        if name not in self._made:
            with as_host():
                self._made[name] = _MAKERS[name](self._assignment, self._leases[name], self._shared)
        return self._made[name]

    def recheck(self) -> None:
        """The policy changed: ends what it grants no more, where that was not for one operation only."""
        if "connect" in self._made:
            with as_host():
                self._made["connect"].recheck()

    async def close(self, reason: str) -> list[Exception]:
        """Ends all of them and closes what they hold; returns what went wrong meanwhile."""
        failures: list[Exception] = []
        for name, lease in self._leases.items():
            made = self._made.pop(name, None)
            try:
                lease.revoke(reason)
                if made is not None:
                    closing = made.aclose() if hasattr(made, "aclose") else made.close()
                    if inspect.isawaitable(closing):
                        await closing
            except Exception as error:  # one capability that does not close must not keep the others open
                failures.append(error)
        return failures
