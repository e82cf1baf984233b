"""Closes inherited file descriptors one by one, from the list that each platform provides.

The other layers don't restrict a descriptor that is open. close_range(2) isn't used, because where it's missing
Python would close two billion numbers instead.
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

MAX_NUMBERS = 1 << 20
"""How many numbers are tried if the limit on descriptors is the only clue."""


def listed_in_dev_fd() -> Iterable[int]:
    """Numbers in /dev/fd, which on macOS lists what is open; raises `OSError` if it isn't mounted."""
    return [int(name) for name in os.listdir("/dev/fd") if name.isdigit()]


def below_the_hard_limit() -> Iterable[int]:
    """Every number that a descriptor can have. Misses one that was opened before the limit was lowered below it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return range(MAX_NUMBERS if hard == resource.RLIM_INFINITY else min(hard, MAX_NUMBERS))


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The layer. `candidates` lists numbers that may be open.

    `held` returns the descriptors that a later layer uses and always closes. They count as closed.
    """

    candidates: Callable[[], Iterable[int]]
    name: str = "descriptors"
    held: Callable[[], frozenset[int]] = frozenset

    def probe(self) -> LayerReport:
        """Count what is open."""
        return LayerReport(self.name, LayerState.ACTIVE, f"{len(self._open())} open")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Close all but `keep_descriptors`, then list what is open again."""
        if wanted.keep_descriptors is None:
            facts: tuple[tuple[str, str], ...] = ()
            with suppress(OSError):  # it can't be listed
                facts = _fact(self._open())
            return LayerReport(self.name, LayerState.DISABLED, "every descriptor stays open, as requested", facts=facts)
        kept = set(wanted.keep_descriptors)
        for number in self._open():
            if number not in kept:
                with suppress(OSError):  # what couldn't be closed is found below
                    os.close(number)
        found = self._open()
        left = sorted(set(found) - kept)
        if left:
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"still open: {left}")
        return LayerReport(self.name, LayerState.ACTIVE, f"closed all but {sorted(kept)}", facts=_fact(found))

    def _open(self) -> tuple[int, ...]:
        held = self.held()
        return tuple(sorted(number for number in self.candidates() if number not in held and _is_open(number)))


def _fact(found: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    return (("open", " ".join(map(str, found))),)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
