"""Closes inherited file descriptors, one by one, as each platform lists them.

What is open stays usable whatever the other layers say. close_range(2) is not used: where it is missing, Python would
close two thousand million numbers instead.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nyx_core.sandbox.confinement import Confinement

MOST = 1 << 20
"""No more numbers than this are tried where the limit on descriptors is the only clue."""


def listed_in_dev_fd() -> Iterable[int]:
    """Numbers in /dev/fd, which on macOS holds exactly what is open; raises `OSError` where it is not
    mounted.
    """
    return [int(name) for name in os.listdir("/dev/fd") if name.isdigit()]


def below_the_hard_limit() -> Iterable[int]:
    """Every number that a descriptor can have. One that was opened before the limit fell lies above it,
    unseen.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return range(MOST if hard == resource.RLIM_INFINITY else min(hard, MOST))


def _nothing() -> frozenset[int]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The layer. `candidates` lists numbers that may be open; what is not open among them does not matter.

    `held` are the numbers that a later layer works with and closes itself, whatever comes of it. They count as closed.
    """

    candidates: Callable[[], Iterable[int]]
    name: str = "descriptors"
    held: Callable[[], frozenset[int]] = _nothing

    def probe(self) -> LayerReport:
        """Count what is open."""
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(self._open())} open")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Close all but `keep_descriptors`, and look again."""
        if wanted.keep_descriptors is None:
            reason = "every descriptor stays open, as asked"
            return LayerReport(self.name, LayerState.DISABLED, reason, facts=self._listed())
        kept = set(wanted.keep_descriptors)
        for number in self._open():
            if number not in kept:
                with suppress(OSError):  # what could not be closed is found below
                    os.close(number)
        found = self._open()
        left = sorted(set(found) - kept)
        if left:
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"still open: {left}")
        reason = f"closed all but {sorted(kept)}"
        return LayerReport(self.name, LayerState.ACTIVE, reason, facts=_fact(found))

    def _open(self) -> tuple[int, ...]:
        held = self.held()
        return tuple(sorted(number for number in self.candidates() if number not in held and _is_open(number)))

    def _listed(self) -> tuple[tuple[str, str], ...]:
        """What is open; nothing is said where it cannot be listed."""
        try:
            return _fact(self._open())
        except OSError:
            return ()


def _fact(found: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    return (("open", " ".join(map(str, found))),)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
