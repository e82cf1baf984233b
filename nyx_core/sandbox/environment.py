"""The layer of environment variables: removes what may not stay, and announces to the plugin what is closed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.confinement import SandboxPolicy, confinement_for
from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nyx_core.sandbox.confinement import Confinement

POLICY = "SANDBOX_POLICY"
ANNOUNCEMENTS = (POLICY, "NO_SUBPROCESS", "NO_NETWORK", "NO_FILESYSTEM_WRITE")


def announced_confinement() -> Confinement | None:
    """The confinement of the policy that the environment names, if it names one.

    The name can be forged and is inherited. It may forbid what would widen, but doesn't prove that anything is in
    force.
    """
    name = os.environ.get(POLICY)
    if name not in {policy.value for policy in SandboxPolicy}:
        return None
    return confinement_for(SandboxPolicy(name))


def environment_for(wanted: Confinement, current: Mapping[str, str]) -> dict[str, str]:
    """The environment afterwards. Inherited values of `ANNOUNCEMENTS` are replaced, since they prove nothing."""
    stays = current if wanted.environment is None else wanted.environment
    after = {name: current[name] for name in stays if name in current and name not in ANNOUNCEMENTS}
    if wanted.policy is not None:
        after[POLICY] = wanted.policy.value
    closed = {
        "NO_SUBPROCESS": not wanted.subprocess,
        "NO_NETWORK": wanted.network.sockets == "none",
        "NO_FILESYSTEM_WRITE": not wanted.writable,
    }
    return after | {name: "1" for name, is_closed in closed.items() if is_closed}


class Environment(NamedTuple):
    """The layer.

    `erase` removes every variable and overwrites the memory in which execve(2) passed them. It returns how many bytes,
    or `None` if it couldn't find them. A platform that can't do this has no `erase`.
    """

    erase: Callable[[], int | None] | None = None
    name: str = "environment"

    def probe(self) -> LayerReport:
        """Count the variables."""
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(os.environ)} variables set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Remove the variables that may not stay, then set the announcements."""
        after = environment_for(wanted, os.environ)
        if self.erase is None or wanted.environment is None:
            for name in set(os.environ) - set(after):
                del os.environ[name]
            os.environ.update(after)
            return LayerReport(self.name, LayerState.ACTIVE, f"{len(after)} variables: {', '.join(sorted(after)[:12])}")
        erased = self.erase()
        os.environ.update(after)
        if erased is None:
            reason = "removed, but the memory they were passed in cannot be found"
            return LayerReport(self.name, LayerState.DEGRADED, reason, "a readable /proc")
        kept = ", ".join(sorted(after)) or "none"
        return LayerReport(self.name, LayerState.ACTIVE, f"{erased} bytes wiped; set now: {kept}")
