"""The capabilities of one run of a plugin: made on first use, and ended together."""

from typing import TYPE_CHECKING, Any

from nyx_stream.attribution import as_host
from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.registry import CAPABILITIES, REGISTRY

if TYPE_CHECKING:
    from nyx_stream.capabilities.network import NetworkBackend


class Shared:
    """What the capabilities of all plugins of one host share: one network backend, with one TLS context."""

    def __init__(self, network: "NetworkBackend | None" = None) -> None:
        self._network = network

    @property
    def network(self) -> "NetworkBackend":
        """The host's network backend, made on first use."""
        if self._network is None:
            from nyx_stream.capabilities.network import NetworkBackend

            self._network = NetworkBackend()
        return self._network


class CapabilitySet:
    """The services of one run of a plugin, each on its own lease below the one of the grant."""

    def __init__(self, assignment: Assignment, shared: Shared) -> None:
        self.assignment = assignment
        self.plugin = assignment.grant.manifest.id
        self._shared = shared
        self._leases = {name: assignment.leases[name].child() for name in CAPABILITIES}
        self._services: dict[str, Any] = {}
        self._facades: dict[str, Any] = {}

    def bind(self) -> None:
        """Opens the granted directories. Call it before any code of the plugin runs: the grant is what is there now."""
        granted = self.assignment.grant.manifest.paths and self.assignment.guard.policy.merged().paths
        if granted and not self._leases["files"].ended:
            files = self.service("files")
            with as_host():
                files.bind()

    def policy_changed(self) -> None:
        """Opens the directories that a new policy grants, and ends the connections that it doesn't grant any more."""
        self.bind()
        if "connect" in self._services:
            with as_host():
                self._services["connect"].recheck()

    def service(self, name: str) -> Any:
        """Returns a service, made on first use.

        Raises:
            Revoked: it was revoked before it was made. One that is revoked later raises `Revoked` when it is used.
        """
        service = self._services.get(name)
        if service is None:
            with as_host():
                service = REGISTRY[name].service(self.assignment, self._leases.get(name), self._shared)
            self._services[name] = service
        return service

    def facade(self, name: str) -> Any:
        """Returns what the plugin holds, made on first use. Raises as `service`."""
        facade = self._facades.get(name)
        if facade is None:
            with as_host():
                facade = self._facades[name] = REGISTRY[name].hold(self.service(name))
        return facade

    async def close(self, reason: str) -> list[Exception]:
        """Ends all services and closes what they hold; returns the errors that this raised."""
        failures: list[Exception] = []
        for name, lease in self._leases.items():
            service = self._services.pop(name, None)
            try:
                lease.revoke(reason)
                if hasattr(service, "aclose"):  # the end of the lease closes everything else
                    await service.aclose()
            except Exception as error:  # one capability that fails to close must not keep the others open
                failures.append(error)
        self._facades.clear()
        return failures
