"""The four functions of the OS layer, for the platform that this process runs on."""

from __future__ import annotations

import hashlib  # noqa: F401 for digests; loaded here, so that confining imports nothing
import sys
from typing import TYPE_CHECKING

from nyx_core.sandbox.confinement import Confinement, SandboxPolicy, SandboxStatus, confinement_for
from nyx_core.sandbox.engine import enforce, survey
from nyx_core.sandbox.platform import current_platform
from nyx_core.sandbox.report import SandboxError, SandboxReport

if TYPE_CHECKING:
    from nyx_core.sandbox.platform import Platform

PLATFORM = current_platform()  # loads the layers, so that confining imports nothing


def apply_policy(policy: SandboxPolicy, *, cooperative_only: bool = False) -> SandboxStatus:
    """Confine this process irreversibly to a ready-made policy. Applying the same policy again has no effect.

    Returns `APPLIED` only if every required layer is in force and each attempt of the witness was refused,
    `UNSUPPORTED` if Nyx has no layers for the platform. Otherwise raises `SandboxError`, also if the policy closes less
    than is closed already. With `cooperative_only` it sets the limits, the umask and the environment, and refuses
    nothing.
    """
    if PLATFORM is None:
        return SandboxStatus.UNSUPPORTED
    _log(enforce(PLATFORM, confinement_for(SandboxPolicy(policy)), cooperative_only=cooperative_only))
    return SandboxStatus.APPLIED


def prepare(confinement: Confinement) -> Platform | None:
    """Do work ahead that confining this process to something like `confinement` will need. Refuses nothing yet.

    Returns a value to pass to `confine` in this process, once. It may hold descriptors, which `confine` closes and
    nothing else may close. If another confinement is applied, the prepared work is discarded.
    """
    return PLATFORM if PLATFORM is None or PLATFORM.prepare is None else PLATFORM.prepare(confinement)


def confine(confinement: Confinement, prepared: Platform | None = None) -> SandboxReport:
    """Confine this process irreversibly, and report what is enforced. Raises `SandboxError` as `apply_policy` does.

    `prepared` is the result of `prepare` in this process.
    """
    platform = PLATFORM if prepared is None else prepared
    if platform is None:
        raise SandboxError(f"Nyx has no layers for {sys.platform}")
    report = enforce(platform, confinement)
    _log(report)
    return report


def probe() -> SandboxReport:
    """What this host could enforce. Changes nothing, and works on every platform."""
    if PLATFORM is None:
        return SandboxReport(sys.platform, "", "")
    return survey(PLATFORM)


def _log(report: SandboxReport) -> None:
    """Logs the state of each layer to `nyx.sandbox`."""
    # A program that reads logs has loaded the module already. Loading it takes longer than confining the process.
    logging = sys.modules.get("logging")
    if logging is None:
        return
    log = logging.getLogger("nyx.sandbox")
    for layer in report.layers:
        level = logging.DEBUG if layer.holds else logging.WARNING
        log.log(level, "%s %s: %s", layer.name, layer.state.value, layer.reason)
