"""The four functions of the OS layer, for the platform that this process runs on."""

from __future__ import annotations

import hashlib  # noqa: F401 for digests; loaded here, so that confining itself imports nothing
import sys
from typing import TYPE_CHECKING

from nyx_core.platforms import current_platform
from nyx_core.sandbox.confinement import Confinement, SandboxPolicy, SandboxStatus
from nyx_core.sandbox.engine import enforce, survey
from nyx_core.sandbox.errors import SandboxError
from nyx_core.sandbox.policies import confinement_for
from nyx_core.sandbox.report import SandboxReport

if TYPE_CHECKING:
    from nyx_core.layers import Platform

# The layers, for the same reason.
PLATFORM = current_platform()


def apply_policy(policy: SandboxPolicy, *, cooperative_only: bool = False) -> SandboxStatus:
    """Confine this process, for good, to a ready-made policy.

    Returns `APPLIED` only if every required layer is in force and the witness was refused everywhere, `UNSUPPORTED`
    where Nyx has no layers for the platform. Raises `SandboxError` otherwise, and when less is asked for than is in
    force. Asking for the same again is a no-op. With `cooperative_only` it sets the limits, the umask and the
    environment, and refuses nothing.
    """
    if PLATFORM is None:
        return SandboxStatus.UNSUPPORTED
    _tell(enforce(PLATFORM, confinement_for(SandboxPolicy(policy)), cooperative_only=cooperative_only))
    return SandboxStatus.APPLIED


def prepare(confinement: Confinement) -> Platform | None:
    """Does ahead what confining this process to something like `confinement` will need. Refuses nothing yet.

    Returns what to give to `confine`, in this process, once. It may hold descriptors, which confining closes; nothing
    else may close them. What was done for another confinement than the one that comes is left and done anew.
    """
    return PLATFORM if PLATFORM is None or PLATFORM.prepare is None else PLATFORM.prepare(confinement)


def confine(confinement: Confinement, prepared: Platform | None = None) -> SandboxReport:
    """Confine this process, for good, and tell what really holds. Raises `SandboxError` as `apply_policy` does.

    `prepared` is what `prepare` returned in this process.
    """
    platform = PLATFORM if prepared is None else prepared
    if platform is None:
        raise SandboxError(f"Nyx has no layers for {sys.platform}")
    report = enforce(platform, confinement)
    _tell(report)
    return report


def probe() -> SandboxReport:
    """What this host could enforce. Changes nothing, and works on every platform."""
    if PLATFORM is None:
        return SandboxReport(sys.platform, "", "")
    return survey(PLATFORM)


def _tell(report: SandboxReport) -> None:
    """Logs how the sandbox was applied to `nyx.sandbox`."""
    # Whoever wants to read a log has loaded the module already; to load it costs more than to confine the process.
    logging = sys.modules.get("logging")
    if logging is None:
        return
    log = logging.getLogger("nyx.sandbox")
    for layer in report.layers:
        log.log(
            logging.DEBUG if layer.holds else logging.WARNING, "%s %s: %s", layer.name, layer.state.value, layer.reason
        )
