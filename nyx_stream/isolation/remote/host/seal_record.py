"""The sandbox report of one worker as one audit record: compact, and whole enough to say later what held. Values only.

The report is the worker's, written before any code of its plugin was read, and judged by `sealing`.
"""

import time
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nyx_core.sandbox import LayerState
from nyx_stream.audit import AuditEvent
from nyx_stream.isolation.process.seal import SealRefused

_WHY = 200
"""Characters of the reason for one gap."""
_MIB = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Layer(_Part):
    name: str
    state: str
    stand_in: str = ""


class _Limit(_Part):
    name: str
    unit: str
    soft: int
    hard: int


class _Witness(_Part):
    act: str


class Told(_Part):
    """What is kept of `SandboxReport.to_dict()`."""

    platform: str = ""
    kernel: str = ""
    machine: str = ""
    facts: dict[str, str] = {}
    policy_hash: str = ""
    layers: Annotated[list[_Layer], Field(max_length=64)] = []
    limits: Annotated[list[_Limit], Field(max_length=64)] = []
    descriptors: Annotated[list[int], Field(max_length=64)] | None = None
    witness: Annotated[list[_Witness], Field(max_length=128)] = []


def read_report(report: dict[str, Any]) -> Told:
    """Returns what is kept of `SandboxReport.to_dict()`. Raises `SealRefused` if it cannot be read."""
    try:
        return Told.model_validate(report)
    except ValidationError as error:
        raise SealRefused(f"its report cannot be read: {error.error_count()} faults") from None


def record_from(plugin: str, told: Told, gaps: tuple[tuple[str, str], ...]) -> AuditEvent:
    """Returns the record of a worker that was taken; it is `allowed` if nothing is missing.

    Args:
        told: its report, which was judged.
        gaps: the required layers that are not in force, each with its reason.
    """
    system = " ".join(filter(None, (told.platform, told.kernel, told.machine)))
    facts = "".join(f", {name} {value}" for name, value in told.facts.items())
    reason = "; ".join(f"{head}: {text}" for head, text in _parts(told, gaps) if text)
    return AuditEvent(
        time.time(), plugin, "sandbox", "seal", system + facts, not gaps, None, reason, "host", kind="report"
    )


def _parts(told: Told, gaps: tuple[tuple[str, str], ...]) -> Iterable[tuple[str, str]]:
    missing = {name for name, _ in gaps}
    yield "not in force", ", ".join(f"{name} ({reason[:_WHY]})" for name, reason in gaps)
    held = [layer for layer in told.layers if layer.name not in missing]
    yield "in force", ", ".join(_held(layer) for layer in held if layer.state != LayerState.DISABLED.value)
    yield "not asked for", ", ".join(layer.name for layer in held if layer.state == LayerState.DISABLED.value)
    yield "limits", ", ".join(f"{limit.name} {_amount(limit)}" for limit in told.limits)
    yield "tried and refused", ", ".join(witness.act for witness in told.witness)
    yield "descriptors", "unknown" if told.descriptors is None else " ".join(map(str, told.descriptors))
    yield "confinement", told.policy_hash[:16]


def _held(layer: _Layer) -> str:
    if layer.stand_in:
        return f"{layer.name} (by {layer.stand_in})"
    return layer.name if layer.state == LayerState.ACTIVE.value else f"{layer.name} ({layer.state})"


def _amount(limit: _Limit) -> str:
    return "/".join(dict.fromkeys(_value(value, limit.unit) for value in (limit.soft, limit.hard)))


def _value(value: int, unit: str) -> str:
    if value < 0:
        return "none"
    if unit == "bytes" and value:
        return f"{value / _MIB:.0f}MiB"
    return f"{value}s" if unit == "seconds" else str(value)
