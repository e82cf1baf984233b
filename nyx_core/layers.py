"""The protocol that every layer of every platform follows. Knows the values of the doorway and no platform.

A layer is one mechanism of one OS in one file: a frozen value without state of its own. A platform is its
layers in the order in which they must be applied, and the witness that tries them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.report import LayerReport, WitnessResult

COOPERATIVE = frozenset({"process", "limits", "environment"})
"""Layers that ask for good behaviour and set limits, but refuse nothing: all that the cooperative mode applies."""


class Layer(Protocol):
    """One mechanism of one OS."""

    @property
    def name(self) -> str:
        """How reports, errors and `Confinement.may_degrade` name this layer."""

    def probe(self) -> LayerReport:
        """Find out, without changing anything, whether this layer could be applied here."""

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Confine this process, irreversibly, as far as this mechanism goes.

        `before` holds the reports of the layers that were applied earlier, in order. A layer that has nothing
        to do answers `DISABLED`; one that the host cannot provide answers `UNAVAILABLE` with the reason and the
        remedy. Neither raises; an `OSError` that escapes is reported as `UNAVAILABLE` with its errno. What to
        do about a layer that does not hold is not its business: the engine decides.
        """


class Posture(NamedTuple):
    """What an earlier confinement of this process closed for good, as the OS itself tells.

    `closed` holds names of `Confinement.closed`, inherited ones too; `digest` is a prefix of `Confinement.digest()`,
    empty where this very process was not confined.
    """

    closed: frozenset[str] = frozenset()
    digest: str = ""


def unknown_posture() -> Posture | None:
    """The answer of an OS that cannot tell: the environment is asked instead."""
    return None


class Platform(NamedTuple):
    """One OS: its layers in order, and how it is observed.

    Attributes:
        witness: tries one forbidden act per axis and never raises; runs after every layer was applied.
        facts: what to say of the host in every report.
        posture: what is in force already, or `None` where the OS cannot tell.
        prepare: does ahead, in this process, what confining it will need; returns the platform to do it with, once.
    """

    name: str
    layers: tuple[Layer, ...]
    witness: Callable[[Confinement, tuple[LayerReport, ...]], tuple[WitnessResult, ...]]
    facts: Callable[[], tuple[tuple[str, str], ...]]
    posture: Callable[[], Posture | None] = unknown_posture
    prepare: Callable[[Confinement], Platform] | None = None
