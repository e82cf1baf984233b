"""The leases of one plugin's grant. They last from loading to unloading or reloading, through crashes and restarts.

Each run of the plugin holds its capabilities on leases below these.
"""

from collections.abc import Callable, Mapping
from functools import partial

from nyx_stream.capabilities.lease import Lease, LeaseEvent, LeaseStatus, Tally
from nyx_stream.errors import PluginStateError
from nyx_stream.isolation.registry import CAPABILITIES
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.limits import parse_terms, print_term


class LeaseSet:
    """One lease for each capability, with the terms of a policy.

    Args:
        plugin: id of the plugin.
        policy: has the terms.
        record: records an event of a lease for the audit: its action, the capability, and the reason.
        tally: counts what is spent through the leases.
    """

    def __init__(
        self, plugin: str, policy: SandboxPolicy, record: Callable[[str, str, str], None], tally: Tally
    ) -> None:
        self._plugin = plugin
        self._record = record
        self.by_name: Mapping[str, Lease] = {
            name: Lease(plugin, name, on_event=partial(self._on_event, name), tally=tally) for name in CAPABILITIES
        }
        for name, lease in self.by_name.items():
            lease.limit(policy.terms(name).given())

    def status(self) -> dict[str, LeaseStatus]:
        """Returns the status of each lease."""
        return {name: lease.status() for name, lease in self.by_name.items()}

    def set_terms(self, capability: str, terms: Mapping[str, object]) -> LeaseStatus:
        """Sets terms of one lease, and records it.

        Raises:
            ValueError: a term is wrong.
            PluginStateError: the lease has ended.
        """
        parsed, lease = parse_terms(capability, terms), self.by_name[capability]
        if lease.ended:
            raise PluginStateError(self._plugin, f"its lease of {capability} has ended ({lease.reason}); reload it")
        lease.limit(parsed)
        texts = (f"{name}: {'none' if value is None else print_term(name, value)}" for name, value in parsed.items())
        self._record("lease", capability, ", ".join(texts) or "unchanged")
        return lease.status()

    def copy_terms(self, capability: str, terms: Mapping[str, object]) -> None:
        """Sets terms that were set for another run of the plugin, unless the lease has ended."""
        lease = self.by_name[capability]
        if not lease.ended:
            lease.limit(parse_terms(capability, terms))

    def apply_policy(self, old: SandboxPolicy, new: SandboxPolicy) -> None:
        """Applies the terms in which a new policy differs from the old one. Unchanged terms continue."""
        for name, lease in self.by_name.items():
            before, after = old.terms(name), new.terms(name)
            if before != after and not lease.ended:
                lease.limit(dict.fromkeys(before.given()) | after.given())

    def revoke(self, capability: str | None, reason: str) -> None:
        """Ends one lease, or all of them, and records it."""
        self.end(capability, reason)
        for name in self.by_name:
            if capability in (None, name):
                self._record("revoke", name, reason)

    def end(self, capability: str | None, reason: str) -> None:
        """Ends one lease, or all of them."""
        for name, lease in self.by_name.items():
            if capability in (None, name):
                lease.revoke(reason)

    def close(self) -> None:
        """Ends all leases together with the grant."""
        self.end(None, "the plugin was unloaded")

    def _on_event(self, capability: str, event: LeaseEvent, reason: str) -> None:
        self._record(event, capability, reason)


def check_capability(capability: str | None) -> None:
    """Raises `LookupError` for an unknown capability; `None` stands for all of them."""
    if capability is not None and capability not in CAPABILITIES:
        raise LookupError(f"no capability {capability!r}; there are {', '.join(CAPABILITIES)}")
