"""Closes inherited file descriptors: what is open stays usable whatever the other layers say. close_range(2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

LAST = 2**31 - 1


def open_descriptors() -> tuple[int, ...]:
    """Every open descriptor of this process, ascending; raises `OSError` where /proc cannot be read."""
    with os.scandir("/proc/self/fd") as entries:
        names = [int(entry.name) for entry in entries]
    # The directory itself was open while it was read.
    return tuple(sorted(number for number in names if _is_open(number)))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class Descriptors(NamedTuple):
    """The layer."""

    name: str = "descriptors"

    def probe(self) -> LayerReport:
        """Count what is open."""
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(open_descriptors())} open")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Close all but `keep_descriptors`."""
        if wanted.keep_descriptors is None:
            facts = _listed()
            return LayerReport(self.name, LayerState.DISABLED, "every descriptor stays open, as asked", facts=facts)
        kept = sorted({number for number in wanted.keep_descriptors if number >= 0})
        low = 0
        for number in kept:
            if low < number:  # an empty range would be taken as everything
                os.closerange(low, number)
            low = number + 1
        os.closerange(low, LAST)
        left = set(open_descriptors()) - set(kept)
        if left:
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"still open: {sorted(left)}")
        return LayerReport(self.name, LayerState.ACTIVE, f"closed all but {kept}", facts=_listed())


def _listed() -> tuple[tuple[str, str], ...]:
    try:
        return (("open", " ".join(map(str, open_descriptors()))),)
    except OSError:
        return ()
