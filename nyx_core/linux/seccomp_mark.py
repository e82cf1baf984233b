"""The mark that a filter leaves: what it closes, told by the kernel and so neither forged nor forgotten. Pure.

prctl(2) with an option that the kernel does not have answers EINVAL. The filter answers it with an errno that
carries eleven bits: chunk 0 is the set of closed axes, two name the process that was confined, and four are the
beginning of the confinement's digest. A child inherits the filter, and so what is closed; its limits and its
descriptors are another matter, so to it nothing counts as applied. Of several filters the newest answers, which is
the tightest, since confining never widens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nyx_core.layers import Posture
from nyx_core.linux.seccomp_filter import Arm, Test, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from nyx_core.sandbox.confinement import Confinement

MARK = 0x6E79_7830  # a prctl option of no kernel
AXES = ("subprocess", "network", "udp", "writes", "reads", "native_code", "ipc")
CARRIED = 0x800  # errno 2048 to 4095: the kernel has no such numbers, and allows a filter to answer them
PAYLOAD = 0x7FF
PID_CHUNKS = 2  # a pid has at most 22 bits (PID_MAX_LIMIT)
DIGEST_CHUNKS = 4
CHUNKS = 1 + PID_CHUNKS + DIGEST_CHUNKS


def chunks_of(closed: frozenset[str], digest: str, pid: int) -> tuple[int, ...]:
    """The errno for each chunk. `digest` is hexadecimal."""
    axes = sum(1 << place for place, name in enumerate(AXES) if name in closed)
    start = int(digest[:11], 16)  # 44 bits: four chunks of eleven
    parts = (axes, *_split(pid, PID_CHUNKS), *_split(start, DIGEST_CHUNKS))
    return tuple(CARRIED | part for part in parts)


def _split(value: int, count: int) -> list[int]:
    return [value >> 11 * (count - 1 - place) & PAYLOAD for place in range(count)]


def _joined(parts: list[int]) -> int:
    value = 0
    for part in parts:
        value = value << 11 | part
    return value


def mark_of(wanted: Confinement, pid: int) -> tuple[int, ...]:
    """The chunks that tell of this confinement."""
    return chunks_of(wanted.closed, wanted.digest(), pid)


def mark_arms(chunks: tuple[int, ...]) -> tuple[Arm, ...]:
    """The arms for the rule of prctl."""
    return tuple(Arm((Test(0, (MARK,)), Test(1, (place,))), refuse(chunk)) for place, chunk in enumerate(chunks))


def posture_from(ask: Callable[[int], int], pid: int) -> Posture:
    """Read the mark as process `pid`. `ask` returns the errno of prctl(MARK, chunk)."""
    answers = []
    for place in range(CHUNKS):
        number = ask(place)
        if not CARRIED <= number <= CARRIED | PAYLOAD:
            return Posture()
        answers.append(number & PAYLOAD)
    axes, *parts = answers
    closed = frozenset(name for place, name in enumerate(AXES) if axes >> place & 1)
    own = _joined(parts[:PID_CHUNKS]) == pid
    return Posture(closed, f"{_joined(parts[PID_CHUNKS:]):011x}" if own else "")
