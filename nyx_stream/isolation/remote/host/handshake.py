"""From a worker's order to READY: its report is judged and recorded before it may import its plugin.

The worker writes the report before it has read any of the plugin's code.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nyx_core.sandbox import LayerState
from nyx_stream.audit import AuditEvent
from nyx_stream.errors import PluginCrashed, PluginError, PluginLoadError, PluginSetupError
from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.remote.host.calls import RemoteCalls, cause_of
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.confinement import DESCRIPTORS, REQUIRED_LAYERS, with_memory
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Order, Ready, RemoteFault, Sealed, decode
from nyx_stream.text import escape

_MAX_REASON = 200
"""Characters of the reason for one missing layer that are recorded."""
_MIB = 2**20


class Handshake:
    """The handshake with one worker."""

    def __init__(self, assignment: Assignment, logger: logging.Logger) -> None:
        self._name = assignment.grant.manifest.id
        self._audit = assignment.audit
        self._logger = logger
        self._frames: asyncio.Queue[Frame | PluginError] = asyncio.Queue()

    def on_frame(self, frame: Frame) -> None:
        """Handles SEALED, READY, and a FAILED of the start."""
        self._frames.put_nowait(frame)

    def fail(self, error: PluginError) -> None:
        """Ends the handshake: the worker is gone."""
        self._frames.put_nowait(error)

    async def perform(self, order: Order, channel: Channel, calls: RemoteCalls) -> Sealed:
        """Starts the plugin once its worker is sealed as ordered, and waits until `calls` can be made.

        Raises:
            PluginLoadError: the worker isn't sealed, broke the protocol, or died; or the code doesn't import.
            PluginSetupError: the plugin's `setup` raised.
        """
        try:
            sealed = decode(Sealed, await self._expect(FrameKind.SEALED))
            report, missing = judge(order, sealed)
            channel.send(FrameKind.START)
            self._record(report, missing)  # in the same turn of the loop, so before any frame of the plugin
            calls.set_methods(decode(Ready, await self._expect(FrameKind.READY)).methods)
            return sealed
        except SealRefused as error:
            raise PluginLoadError(self._name, f"its worker is not sealed: {error}") from error
        except ProtocolFault as fault:
            channel.fail(fault)
            raise PluginLoadError(self._name, f"it broke the protocol: {fault}") from fault
        except PluginCrashed as error:
            raise PluginLoadError(self._name, error.message) from error

    async def _expect(self, kind: FrameKind) -> Frame:
        """Waits for the next frame. Raises the failure that came instead."""
        frame = await self._frames.get()
        if isinstance(frame, PluginError):
            raise frame
        if frame.kind is kind:
            return frame
        fault = decode(RemoteFault, frame)
        error = PluginSetupError if fault.reason == "setup" else PluginLoadError
        raise error(self._name, escape(fault.message)) from cause_of(fault)

    def _record(self, report: "SealReport", missing: "MissingLayers") -> None:
        for layer, reason in missing:
            self._logger.warning("runs without %s, as its policy allows: %s", layer, reason)
        if self._audit is not None:
            self._audit(audit_event(self._name, report, missing))


class SealRefused(Exception):
    """A worker's report doesn't match its order."""


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True)


class ReportedLayer(_Values):
    """One layer of a report."""

    name: str
    state: str
    reason: str
    stand_in: str


class ReportedLimit(_Values):
    """One resource limit of a report."""

    name: str
    unit: str
    soft: int
    hard: int


class ReportedAttempt(_Values):
    """One act that the worker attempted and that had to be refused."""

    act: str = ""
    refused: bool


class SealReport(_Values):
    """The parts of `SandboxReport.to_dict()` that are judged or recorded."""

    platform: str = ""
    kernel: str = ""
    machine: str = ""
    facts: dict[str, str] = {}
    policy_hash: str
    layers: Annotated[list[ReportedLayer], Field(max_length=64)]
    limits: Annotated[list[ReportedLimit], Field(max_length=64)] = []
    descriptors: Annotated[list[int], Field(max_length=64)] | None
    witness: Annotated[list[ReportedAttempt], Field(max_length=128)]


MissingLayers = tuple[tuple[str, str], ...]
"""Required layers that aren't in force, each with the reason."""


def judge(order: Order, sealed: Sealed) -> tuple[SealReport, MissingLayers]:
    """Returns a worker's report and the layers that it runs without: none, unless the order allows that.

    Raises:
        SealRefused: the report doesn't match the order.
    """
    try:
        report = SealReport.model_validate(sealed.report)
    except ValidationError as error:
        raise SealRefused(f"its report cannot be read: {error.error_count()} errors") from None
    if report.policy_hash != with_memory(order.confinement, sealed.baseline + order.memory).digest():
        raise SealRefused("it reports another confinement than was ordered")
    layers = {layer.name: layer for layer in report.layers}
    missing = []
    for name in sorted(REQUIRED_LAYERS):
        layer = layers.get(name)
        if layer is None or (layer.state != LayerState.ACTIVE.value and not layer.stand_in):
            reason = layer.reason if layer is not None else "not reported"
            if name not in order.confinement.may_degrade:
                raise SealRefused(f"{name} is not in force: {reason}")
            missing.append((name, reason))
    # If layers are missing, there may be nothing to attempt; but every attempt that was made must have been refused.
    if not (report.witness or missing) or not all(attempt.refused for attempt in report.witness):
        raise SealRefused("it attempted no forbidden act, or one was not refused")
    checked = not any(name == "descriptors" for name, _ in missing)
    if checked and report.descriptors != list(DESCRIPTORS):
        raise SealRefused(f"it holds the descriptors {report.descriptors}, not {list(DESCRIPTORS)}")
    return report, tuple(missing)


def audit_event(plugin: str, report: SealReport, missing: MissingLayers) -> AuditEvent:
    """Returns the audit event of an accepted worker. It is `allowed` if no layer is missing."""
    system = " ".join(filter(None, (report.platform, report.kernel, report.machine)))
    facts = "".join(f", {name} {value}" for name, value in report.facts.items())
    reason = "; ".join(f"{head}: {text}" for head, text in _summary(report, missing) if text)
    return AuditEvent(
        time.time(), plugin, "sandbox", "seal", system + facts, not missing, None, reason, "host", kind="report"
    )


def _summary(report: SealReport, missing: MissingLayers) -> Iterable[tuple[str, str]]:
    names = {name for name, _ in missing}
    present = [layer for layer in report.layers if layer.name not in names]
    yield "not in force", ", ".join(f"{name} ({reason[:_MAX_REASON]})" for name, reason in missing)
    yield "in force", ", ".join(_layer(layer) for layer in present if layer.state != LayerState.DISABLED.value)
    yield "not asked for", ", ".join(layer.name for layer in present if layer.state == LayerState.DISABLED.value)
    yield "limits", ", ".join(f"{limit.name} {_limit(limit)}" for limit in report.limits)
    yield "tried and refused", ", ".join(attempt.act for attempt in report.witness)
    yield "descriptors", "unknown" if report.descriptors is None else " ".join(map(str, report.descriptors))
    yield "confinement", report.policy_hash[:16]


def _layer(layer: ReportedLayer) -> str:
    if layer.stand_in:
        return f"{layer.name} (by {layer.stand_in})"
    return layer.name if layer.state == LayerState.ACTIVE.value else f"{layer.name} ({layer.state})"


def _limit(limit: ReportedLimit) -> str:
    return "/".join(dict.fromkeys(_amount(value, limit.unit) for value in (limit.soft, limit.hard)))


def _amount(value: int, unit: str) -> str:
    if value < 0:
        return "none"
    if unit == "bytes" and value:
        return f"{value / _MIB:.0f}MiB"
    return f"{value}s" if unit == "seconds" else str(value)
