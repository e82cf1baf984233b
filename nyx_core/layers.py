"""The protocol that every layer of every platform follows. Knows the values of the doorway and no platform.

A layer is one mechanism of one OS in one file. It is a frozen value without state of its own; what it finds out it
returns. A platform is its layers in the order in which they must be applied, and the witness that tries them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from nyx_core.sandbox.confinement import Confinement
from nyx_core.sandbox.report import LayerReport, WitnessResult


class Layer(Protocol):
    """One mechanism of one OS."""

    @property
    def name(self) -> str:
        """How reports, errors and `Confinement.may_degrade` name this layer."""

    def probe(self) -> LayerReport:
        """Find out, without changing anything, whether this layer could be applied here."""

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...]) -> LayerReport:
        """Confine this process, irreversibly, as far as this mechanism goes.

        `before` holds the reports of the layers that were applied earlier, in order. A layer that has nothing to do
        answers `DISABLED`; one that the host cannot provide answers `UNAVAILABLE` with the reason and the remedy.
        Neither raises; an `OSError` that escapes is reported as `UNAVAILABLE` with its errno. What to do about a
        layer that does not hold is not its business: the engine decides.
        """


def _no_posture() -> frozenset[str] | None:
    return None


@dataclass(frozen=True, slots=True)
class Platform:
    """One OS: its layers in order, and how it is observed.

    Attributes:
        witness: tries one forbidden act per axis and never raises; runs after every layer was applied.
        facts: what to say of the host in every report.
        posture: what an earlier confinement closed for good, asked of the OS itself: names of closed axes, an empty
            set where nothing is closed, or `None` where the OS cannot tell (the environment is asked instead).
    """

    name: str
    layers: tuple[Layer, ...]
    witness: Callable[[Confinement, tuple[LayerReport, ...]], tuple[WitnessResult, ...]]
    facts: Callable[[], tuple[tuple[str, str], ...]]
    posture: Callable[[], frozenset[str] | None] = field(default=_no_posture)
