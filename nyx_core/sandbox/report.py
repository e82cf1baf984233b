"""What the OS layer really did, as values: frozen, and plain enough for JSON. Measures nothing itself."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from enum import Enum


class LayerState(Enum):
    """How far a layer got.

    In a survey (`probe`) `ACTIVE` means that the layer could be applied here.
    """

    ACTIVE = "active"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"


# `typing.NamedTuple` would say the same, and `typing` takes an eighth of the time that importing the doorway does.
class LimitReport(
    namedtuple("LimitReport", "name unit asked_soft asked_hard soft hard note", defaults=("",))  # noqa: PYI024
):
    """One resource limit: what was asked, what is in force, and why they differ.

    A value of -1 means that there is no limit. `unit` is `"bytes"`, `"seconds"` or `"count"`.
    """

    name: str
    unit: str
    asked_soft: int
    asked_hard: int
    soft: int
    hard: int
    note: str

    __slots__ = ()


class WitnessResult(namedtuple("WitnessResult", "axis act refused answer")):  # noqa: PYI024
    """One forbidden act really tried after locking. `answer` is what the system said, e.g. `EPERM`."""

    axis: str
    act: str
    refused: bool
    answer: str

    __slots__ = ()


class LayerReport(
    namedtuple(  # noqa: PYI024
        "LayerReport", "name state reason remedy stand_in facts limits", defaults=("", "", (), ())
    )
):
    """One layer: its state and why.

    Attributes:
        reason: one sentence: what it enforces now, or what is missing.
        remedy: the sysctl, kernel option or privilege that would provide what is missing.
        stand_in: the layer that enforces the same instead, if one does; the confinement then holds.
        facts: further measured values, as name and text.
        limits: the limits this layer set, if it sets any.
    """

    name: str
    state: LayerState
    reason: str
    remedy: str
    stand_in: str
    facts: tuple[tuple[str, str], ...]
    limits: tuple[LimitReport, ...]

    __slots__ = ()

    @property
    def holds(self) -> bool:
        """Whether what was asked of this layer is enforced, by itself or its stand-in, or nothing was asked."""
        return self.state in (LayerState.ACTIVE, LayerState.DISABLED) or bool(self.stand_in)


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What one call of `confine` did, or what `probe` found.

    Attributes:
        platform: `sys.platform`.
        kernel: release of the running kernel or OS.
        machine: processor architecture as the OS names it.
        facts: what else was measured of the host, e.g. `landlock_abi`, `landlock_errata`.
        policy: `"minimal"`, `"strict"` or `None`.
        policy_hash: `Confinement.digest()` of what was asked; empty in a survey.
        repeated: the same was in force already, and nothing was applied anew.
        layers: in the order in which they were applied.
        limits: every limit asked for, with what is in force.
        descriptors: open descriptors after applying; `None` where that cannot be known.
        environment: names of the variables that are set after applying.
        witness: forbidden acts tried after locking.
    """

    platform: str
    kernel: str
    machine: str
    facts: tuple[tuple[str, str], ...] = ()
    policy: str | None = None
    policy_hash: str = ""
    repeated: bool = False
    layers: tuple[LayerReport, ...] = ()
    limits: tuple[LimitReport, ...] = ()
    descriptors: tuple[int, ...] | None = None
    environment: tuple[str, ...] = ()
    witness: tuple[WitnessResult, ...] = ()

    def layer(self, name: str) -> LayerReport | None:
        """The report of one layer, or `None` if there is no such layer here."""
        return next((layer for layer in self.layers if layer.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """Plain values only: `facts` become dictionaries, states become text."""
        plain: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        layers = [
            layer._asdict()
            | {"state": layer.state.value, "facts": dict(layer.facts)}
            | {"limits": [limit._asdict() for limit in layer.limits]}
            for layer in self.layers
        ]
        return plain | {
            "facts": dict(self.facts),
            "layers": layers,
            "limits": [limit._asdict() for limit in self.limits],
            "descriptors": None if self.descriptors is None else list(self.descriptors),
            "environment": list(self.environment),
            "witness": [result._asdict() for result in self.witness],
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        import json  # costs more than all of this module, and most callers never ask

        return json.dumps(self.to_dict(), indent=indent)

    def to_table(self) -> str:
        """The report for a person: one line per layer, limit and witness."""
        from nyx_core.sandbox.platform_table import draw

        return draw(self)
