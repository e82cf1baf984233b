"""The report on a confinement, as frozen values that convert to JSON and to text, and the error that carries it."""

from __future__ import annotations

import errno
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum

TYPE_CHECKING = False  # importing `typing` takes an eighth of what importing `nyx_core.sandbox` does
if TYPE_CHECKING:
    from collections.abc import Iterator


class LayerState(Enum):
    """How far a layer got.

    In a survey (`probe`) `ACTIVE` means that the layer could be applied here.
    """

    ACTIVE = "active"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"


# `typing.NamedTuple` would import `typing`.
class LimitReport(
    namedtuple("LimitReport", "name unit asked_soft asked_hard soft hard note", defaults=("",))  # noqa: PYI024
):
    """One resource limit: what was requested, what is in force, and why they differ.

    -1 means unlimited. `unit` is `"bytes"`, `"seconds"` or `"count"`.
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
    """One forbidden operation, attempted after locking. `answer` is the system's answer, e.g. `EPERM`."""

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
        reason: what it enforces now, or what is missing, in one sentence.
        remedy: the sysctl, kernel option or privilege that would provide what is missing.
        stand_in: the layer that enforces the same instead, if any; the confinement then holds.
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
        """Whether the layer or its stand-in enforces what was requested, or nothing was requested."""
        return self.state in (LayerState.ACTIVE, LayerState.DISABLED) or bool(self.stand_in)


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What one call of `confine` did, or what `probe` found.

    Attributes:
        platform: `sys.platform`.
        kernel: release of the running kernel or OS.
        machine: processor architecture as the OS names it.
        facts: further properties of the host, e.g. `landlock_abi`, `landlock_errata`.
        policy: `"minimal"`, `"strict"` or `None`.
        policy_hash: `Confinement.digest()` of what was requested; empty in a survey.
        repeated: the same was in force already, and nothing was applied.
        layers: in the order in which they were applied.
        limits: every requested limit, with what is in force.
        descriptors: open descriptors after applying; `None` if unknown.
        environment: names of the variables that are set after applying.
        witness: forbidden operations attempted after locking.
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
        import json  # takes longer to load than this module, and most callers don't need it

        return json.dumps(self.to_dict(), indent=indent)

    def to_table(self) -> str:
        """The report as text: one line per layer, limit and witness result, and what would provide a missing layer."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        facts = "".join(f", {name.replace('_', ' ')} {value}" for name, value in self.facts)
        yield f"{self.platform} {self.kernel} {self.machine}{facts}".rstrip()
        if self.policy_hash:
            yield f"policy {self.policy or 'custom'} {self.policy_hash[:12]}{', in force already' * self.repeated}"
        width = max((len(layer.name) for layer in self.layers), default=0)
        for layer in self.layers:
            yield f"  {layer.name:{width}}  {layer.state.value:11}  {layer.reason}"
            if layer.remedy:
                yield f"  {'':{width}}  {'':11}  needs: {layer.remedy}"
        if not self.layers:
            yield "  no layers for this platform: only the guard in Python decides"
        for limit in self.limits:
            asked = f"{limit.asked_soft}/{limit.asked_hard}"
            note = f" ({limit.note})" if limit.note else ""
            yield f"  limit    {limit.name}: {limit.soft}/{limit.hard} {limit.unit}, asked {asked}{note}"
        for result in self.witness:
            verdict = "refused" if result.refused else "NOT REFUSED"
            yield f"  witness  {result.axis}: {result.act}: {verdict}, {result.answer}"


class SandboxError(RuntimeError):
    """A required layer couldn't be applied, the witness succeeded, or less was requested than is in force.

    The process may be partly confined when this is raised. It's unfit to run a plugin: end it.

    Attributes:
        report: what was reached, layer by layer; `None` if nothing was tried.
        layer: name of the layer that refused, or `None` if it wasn't a single layer.
    """

    def __init__(self, message: str, *, report: SandboxReport | None = None, layer: str | None = None) -> None:
        self.report = report
        self.layer = layer
        super().__init__(message)


def errno_name(number: int | None) -> str:
    """`EPERM` for 1; the number as text if it has no name."""
    return errno.errorcode.get(number or 0, str(number or "no errno"))
