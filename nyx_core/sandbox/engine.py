"""Applies the layers of a platform in order, checks the result with the witness, and fails closed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from nyx_core.sandbox.environment import announced_confinement
from nyx_core.sandbox.platform import COOPERATIVE, Posture
from nyx_core.sandbox.report import LayerReport, LayerState, SandboxError, SandboxReport, errno_name

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.platform import Platform


def enforce(platform: Platform, wanted: Confinement, *, cooperative_only: bool = False) -> SandboxReport:
    """Confine this process with the layers of `platform`.

    Raises `SandboxError` if `wanted` closes less than is closed already, if a layer outside `may_degrade` doesn't hold,
    or if an attempt of the witness succeeds. With `cooperative_only`, applies only the layers that announce and limit.
    """
    report = _new_report(platform, wanted)
    in_force = _in_force(platform, cooperative_only=cooperative_only)
    lost = in_force.closed - wanted.closed
    if lost:
        raise SandboxError(f"asks for less than is in force: {', '.join(sorted(lost))} closed already", report=report)
    repeated = bool(in_force.digest) and report.policy_hash.startswith(in_force.digest)
    if repeated and not cooperative_only:
        # Nothing is claimed but what the OS itself says and the witness then attempts.
        reason = "an equal confinement is in force already; nothing was applied again"
        layers = tuple(LayerReport(layer.name, LayerState.ACTIVE, reason) for layer in platform.layers)
        report = replace(report, layers=layers, repeated=True, environment=tuple(sorted(os.environ)))
        return _with_witness(platform, wanted, report)
    applied: list[LayerReport] = []
    for layer in platform.layers:
        if cooperative_only and layer.name not in COOPERATIVE:
            applied.append(LayerReport(layer.name, LayerState.DISABLED, "cooperative mode refuses nothing"))
            continue
        try:
            applied.append(layer.apply(wanted, tuple(applied)))
        except OSError as error:
            applied.append(_failed(layer.name, error))
        if not applied[-1].holds and layer.name not in wanted.may_degrade:
            raise _refusal(applied[-1], _with_layers(report, applied))
    done = replace(_with_layers(report, applied), repeated=repeated)
    return done if cooperative_only else _with_witness(platform, wanted, done)


def survey(platform: Platform) -> SandboxReport:
    """What the layers of `platform` could do here. Changes nothing."""
    found = []
    for layer in platform.layers:
        try:
            found.append(layer.probe())
        except OSError as error:
            found.append(_failed(layer.name, error))
    return replace(_new_report(platform), layers=tuple(found), environment=tuple(sorted(os.environ)))


def _in_force(platform: Platform, *, cooperative_only: bool) -> Posture:
    """What is closed already, according to the OS, or to the environment if the OS can't tell or refused nothing.

    With a digest from the environment, a call counts as a repetition only in cooperative mode, which applies every
    layer again anyway.
    """
    if platform.posture is not None:
        posture = platform.posture()
        if posture.closed or not cooperative_only:
            return posture
    announced = announced_confinement()
    if announced is None:
        return Posture()
    return Posture(announced.closed, announced.digest() if cooperative_only else "")


def _failed(name: str, error: OSError) -> LayerReport:
    file_name = f" ({error.filename})" if error.filename else ""
    reason = f"{errno_name(error.errno)}: {error.strerror or error}{file_name}"
    return LayerReport(name, LayerState.UNAVAILABLE, reason)


def _refusal(layer: LayerReport, report: SandboxReport) -> SandboxError:
    remedy = f"; needs {layer.remedy}" if layer.remedy else ""
    message = f"layer {layer.name} is {layer.state.value}: {layer.reason}{remedy}"
    return SandboxError(message, report=report, layer=layer.name)


def _with_witness(platform: Platform, wanted: Confinement, report: SandboxReport) -> SandboxReport:
    report = replace(report, witness=platform.witness(wanted, report.layers))
    succeeded = [result for result in report.witness if not result.refused]
    if succeeded:
        acts = ", ".join(f"{result.act} ({result.axis}): {result.answer}" for result in succeeded)
        raise SandboxError(f"not refused after locking: {acts}", report=report)
    return report


def _new_report(platform: Platform, wanted: Confinement | None = None) -> SandboxReport:
    """A report on the host and on what was requested, without layers."""
    release, machine = "", ""
    if sys.platform != "win32":
        release, machine = os.uname().release, os.uname().machine
    report = SandboxReport(sys.platform, release, machine, platform.facts())
    if wanted is None:
        return report
    policy = None if wanted.policy is None else wanted.policy.value
    return replace(report, policy=policy, policy_hash=wanted.digest())


def _with_layers(report: SandboxReport, applied: list[LayerReport]) -> SandboxReport:
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
