"""Applies the layers of a platform in order, tries the result, and fails closed. Knows no platform by name."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from nyx_core.layers import COOPERATIVE, Posture
from nyx_core.sandbox.confinement import SandboxPolicy
from nyx_core.sandbox.errors import SandboxError
from nyx_core.sandbox.policies import confinement_for
from nyx_core.sandbox.report import LayerReport, LayerState, SandboxReport

if TYPE_CHECKING:
    from nyx_core.layers import Layer, Platform
    from nyx_core.sandbox.confinement import Confinement


def enforce(platform: Platform, wanted: Confinement, *, cooperative_only: bool = False) -> SandboxReport:
    """Confine this process with the layers of `platform`.

    Raises `SandboxError` if less is asked for than is in force, if a layer outside `may_degrade` does not hold, or
    if a witness gets through. With `cooperative_only`, only the layers that announce and limit are applied.
    """
    report = _blank(platform, wanted)
    in_force = _in_force(platform, cooperative_only=cooperative_only)
    lost = in_force.closed - wanted.closed
    if lost:
        raise SandboxError(f"asks for less than is in force: {', '.join(sorted(lost))} closed already", report=report)
    repeated = bool(in_force.digest) and report.policy_hash.startswith(in_force.digest)
    if repeated and not cooperative_only:
        return _proved(platform, wanted, _again(platform, report))
    applied: list[LayerReport] = []
    for layer in platform.layers:
        if cooperative_only and layer.name not in COOPERATIVE:
            applied.append(LayerReport(layer.name, LayerState.DISABLED, "cooperative mode refuses nothing"))
            continue
        applied.append(_apply(layer, wanted, tuple(applied)))
        if not applied[-1].holds and layer.name not in wanted.may_degrade:
            raise _refusal(applied[-1], _filled(report, applied))
    done = replace(_filled(report, applied), repeated=repeated)
    return done if cooperative_only else _proved(platform, wanted, done)


def survey(platform: Platform) -> SandboxReport:
    """What the layers of `platform` could do here. Changes nothing."""
    found = []
    for layer in platform.layers:
        try:
            found.append(layer.probe())
        except OSError as error:
            found.append(_failed(layer.name, error))
    return replace(_host(platform), layers=tuple(found), environment=tuple(sorted(os.environ)))


def _in_force(platform: Platform, *, cooperative_only: bool) -> Posture:
    """What the OS says; where it cannot say or was never asked to refuse anything, what the environment says.

    The environment can be forged and is inherited, so it counts in one direction: it may forbid what would widen. It
    has a digest, and so may make a call a repetition, only where every layer is applied again all the same.
    """
    posture = platform.posture()
    if posture is not None and (posture.closed or not cooperative_only):
        return posture
    named = os.environ.get("SANDBOX_POLICY")
    if named not in {policy.value for policy in SandboxPolicy}:
        return Posture()
    confinement = confinement_for(SandboxPolicy(named))
    return Posture(confinement.closed, confinement.digest() if cooperative_only else "")


def _apply(layer: Layer, wanted: Confinement, before: tuple[LayerReport, ...]) -> LayerReport:
    try:
        return layer.apply(wanted, before)
    except OSError as error:
        return _failed(layer.name, error)


def _failed(name: str, error: OSError) -> LayerReport:
    number = errno.errorcode.get(error.errno or 0, "no errno")
    place = f" ({error.filename})" if error.filename else ""
    return LayerReport(name, LayerState.UNAVAILABLE, f"{number}: {error.strerror or error}{place}")


def _refusal(layer: LayerReport, report: SandboxReport) -> SandboxError:
    remedy = f"; needs {layer.remedy}" if layer.remedy else ""
    message = f"layer {layer.name} is {layer.state.value}: {layer.reason}{remedy}"
    return SandboxError(message, report=report, layer=layer.name)


def _proved(platform: Platform, wanted: Confinement, report: SandboxReport) -> SandboxReport:
    report = replace(report, witness=platform.witness(wanted, report.layers))
    through = [result for result in report.witness if not result.refused]
    if through:
        acts = ", ".join(f"{result.act} ({result.axis}): {result.answer}" for result in through)
        raise SandboxError(f"not refused after locking: {acts}", report=report)
    return report


def _again(platform: Platform, report: SandboxReport) -> SandboxReport:
    """The report of a no-op: nothing is claimed but what the OS itself tells and the witness then tries."""
    reason = "an equal confinement is in force already; nothing was applied again"
    layers = tuple(LayerReport(layer.name, LayerState.ACTIVE, reason) for layer in platform.layers)
    return replace(report, layers=layers, repeated=True, environment=tuple(sorted(os.environ)))


def _host(platform: Platform) -> SandboxReport:
    release, machine = "", ""
    if sys.platform != "win32":
        release, machine = os.uname().release, os.uname().machine
    return SandboxReport(sys.platform, release, machine, platform.facts())


def _blank(platform: Platform, wanted: Confinement) -> SandboxReport:
    policy = None if wanted.policy is None else wanted.policy.value
    return replace(_host(platform), policy=policy, policy_hash=wanted.digest())


def _filled(report: SandboxReport, applied: list[LayerReport]) -> SandboxReport:
    limits = tuple(limit for layer in applied for limit in layer.limits)
    opened = next((dict(layer.facts).get("open") for layer in applied if layer.name == "descriptors"), None)
    descriptors = None if opened is None else tuple(int(number) for number in opened.split())
    return replace(
        report,
        layers=tuple(applied),
        limits=limits,
        descriptors=descriptors,
        environment=tuple(sorted(os.environ)),
    )
