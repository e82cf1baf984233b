"""The leases of one plugin, for as long as its grant lasts: a crash and a restart change nothing about them.

Each life of the plugin holds its capabilities on leases below these.
"""

from collections.abc import Callable, Mapping
from functools import partial

from nyx_stream.capabilities.budget import Tally
from nyx_stream.capabilities.lease import Happening, Lease, LeaseStatus
from nyx_stream.errors import PluginStateError
from nyx_stream.isolation.backend import CAPABILITIES
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.limits import parse_terms, print_term

Record = Callable[[str, str, str], None]
"""Takes what happened to a lease: action, capability, and why or how."""


class Leases:
    """One lease for each capability, begun under the terms of a policy.

    `record` is told everything for the audit; `tally` counts what is spent through them.
    """

    def __init__(self, plugin: str, policy: SandboxPolicy, record: Record, tally: Tally | None = None) -> None:
        self._plugin = plugin
        self._record = record
        self.by_name: Mapping[str, Lease] = {
            name: Lease(plugin, name, told=partial(self._happened, name), tally=tally) for name in CAPABILITIES
        }
        for name, lease in self.by_name.items():
            lease.limit(policy.terms(name).given())

    def status(self) -> dict[str, LeaseStatus]:
        """Returns how each lease stands."""
        return {name: lease.status() for name, lease in self.by_name.items()}

    def limit(self, capability: str, terms: Mapping[str, object]) -> LeaseStatus:
        """Sets terms of one lease anew.

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

    def share(self, capability: str, terms: Mapping[str, object]) -> None:
        """Takes terms that were set for another life of the plugin, unless the lease has ended."""
        lease = self.by_name[capability]
        if not lease.ended:
            lease.limit(parse_terms(capability, terms))

    def follow(self, old: SandboxPolicy, new: SandboxPolicy) -> None:
        """Puts the terms of a new policy in force where they differ from the old one's; the others go on running."""
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
        """Ends the leases with the grant: nothing more happens to them."""
        for lease in self.by_name.values():
            lease.revoke("the plugin was unloaded")

    def _happened(self, capability: str, happening: Happening, reason: str) -> None:
        self._record(happening, capability, reason)


def check_capability(capability: str | None) -> None:
    """Raises `LookupError` for a name that is no capability's; `None` stands for all."""
    if capability is not None and capability not in CAPABILITIES:
        raise LookupError(f"no capability {capability!r}; there are {', '.join(CAPABILITIES)}")
