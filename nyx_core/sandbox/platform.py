"""The protocol of every layer and platform, and the choice of the running platform.

Theory of operation: a layer is one mechanism of one OS in one file, a frozen value without state. A platform is its
layers, in the order in which the engine applies them, and a witness that afterwards attempts what they forbid. Each
platform package has a module `platform` with a function `platform() -> Platform`. Only the running one is imported.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nyx_core.sandbox.report import LayerState, WitnessResult, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.report import LayerReport

COOPERATIVE = frozenset({"process", "limits", "environment"})
"""Layers that announce and limit, but refuse nothing. The cooperative mode applies only these."""

REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})

PACKAGES = {"linux": "linux", "darwin": "macos", "win32": "windows", "openbsd": "openbsd"}
"""The folder in `nyx_core` for each `sys.platform`."""


class Layer(Protocol):
    """One mechanism of one OS."""

    @property
    def name(self) -> str:
        """The name of this layer in reports, in errors and in `Confinement.may_degrade`."""

    def probe(self) -> LayerReport:
        """Find out, without changing anything, whether this layer could be applied here."""

    def apply(self, wanted: Confinement, before: tuple[LayerReport, ...], /) -> LayerReport:
        """Confine this process irreversibly, as far as this mechanism can.

        `before` has the reports of the layers applied earlier, in order. A layer with nothing to do returns `DISABLED`,
        one that the host can't provide returns `UNAVAILABLE` with the reason and the remedy. Neither raises. The engine
        reports an `OSError` as `UNAVAILABLE` with its errno, and decides what happens if a layer doesn't hold.
        """


class Posture(NamedTuple):
    """What an earlier confinement of this process closed irreversibly, according to the OS.

    `closed` has names of `Confinement.closed`, inherited ones too. `digest` is a prefix of `Confinement.digest()`,
    empty if the process inherited its confinement.
    """

    closed: frozenset[str] = frozenset()
    digest: str = ""


class Platform(NamedTuple):
    """One OS.

    Attributes:
        layers: in the order in which they are applied.
        witness: attempts one forbidden operation per axis after every layer was applied. Never raises.
        facts: properties of the host for every report.
        prepare: does work ahead of confining; returns the platform to confine this process with, once.
        posture: what is in force already. If the OS can't tell, the engine reads the environment.
    """

    name: str
    layers: tuple[Layer, ...]
    witness: Callable[[Confinement, tuple[LayerReport, ...]], tuple[WitnessResult, ...]]
    facts: Callable[[], tuple[tuple[str, str], ...]]
    prepare: Callable[[Confinement], Platform] | None = None
    posture: Callable[[], Posture] | None = None


def current_platform(name: str = sys.platform) -> Platform | None:
    """The platform of this process, or `None` if Nyx has no layers for it.

    `name` is a `sys.platform`; OpenBSD's ends in its release number.
    """
    package = PACKAGES.get("openbsd" if name.startswith("openbsd") else name)
    if package is None:
        return None
    platform = import_module(f"nyx_core.{package}.platform").platform()
    if not isinstance(platform, Platform):
        raise TypeError(f"nyx_core.{package}.platform.platform() returned {type(platform).__name__}, expected Platform")
    return platform


class WitnessAttempt(NamedTuple):
    """A forbidden operation, attempted if any of `layers` is in force. `refusals` are the errnos that refuse it.

    It's harmless if it succeeds: it's undone at once, or its arguments are invalid, so that the kernel answers with
    another errno (EFAULT, EBADF, EINVAL) than a refusal.
    """

    axis: str
    act: str
    layers: tuple[str, ...]
    attempt: Callable[[], object]
    refusals: frozenset[int] = REFUSALS

    def run(self) -> WitnessResult:
        """Attempt it."""
        try:
            self.attempt()
        except OSError as error:
            return WitnessResult(self.axis, self.act, error.errno in self.refusals, errno_name(error.errno))
        return WitnessResult(self.axis, self.act, False, "succeeded")


def run_attempts(attempts: Iterable[WitnessAttempt], applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Run the attempts that a layer in force, or its stand-in, should refuse."""
    active = {report.name for report in applied if report.state is LayerState.ACTIVE or report.stand_in}
    return tuple(attempt.run() for attempt in attempts if active.intersection(attempt.layers))
