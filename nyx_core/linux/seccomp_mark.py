"""The mark that a filter leaves: what it closes, as the kernel tells it, so it can't be forged or lost. Pure functions.

Theory of operation: prctl(2) fails with EINVAL for an option that the kernel doesn't know. For one such option the
filter returns an errno that carries eleven bits. Chunk 0 is the set of closed axes, two chunks are the pid of the
confined process, and four are the beginning of the confinement's digest. A child inherits the filter, and so what is
closed. It doesn't inherit limits and descriptors, so with another pid nothing counts as applied. Of several filters the
newest decides, which is the tightest, because confining never widens.

The mark differs for each process and confinement, the rest of the program doesn't. So a program is compiled once with
placeholders, and stamped with each mark.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.seccomp_filter import ArgumentMatch, Arm, Rule, assemble, compile_rules, refuse, ret
from nyx_core.sandbox.platform import Posture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nyx_core.linux.syscall_table import SyscallTable
    from nyx_core.sandbox.confinement import Confinement

MARK = 0x6E79_7830  # a prctl option that no kernel has
AXES = ("subprocess", "network", "udp", "writes", "reads", "native_code", "ipc")
CARRIED = 0x800  # errno 2048 to 4095: the kernel has no such numbers, and allows a filter to return them
PAYLOAD = 0x7FF
PID_CHUNKS = 2  # a pid has at most 22 bits (PID_MAX_LIMIT)
DIGEST_CHUNKS = 4
CHUNKS = 1 + PID_CHUNKS + DIGEST_CHUNKS

_PLACEHOLDERS = tuple(0x8000 | chunk for chunk in range(CHUNKS))  # errno stops at 4095: no rule returns these


def mark_of(wanted: Confinement, pid: int) -> tuple[int, ...]:
    """The chunks of the mark for this confinement, as errnos."""
    return chunks_of(wanted.closed, wanted.digest(), pid)


def chunks_of(closed: frozenset[str], digest: str, pid: int) -> tuple[int, ...]:
    """The errno for each chunk. `digest` is hexadecimal."""
    axes = sum(1 << bit for bit, name in enumerate(AXES) if name in closed)
    start = int(digest[:11], 16)  # 44 bits: four chunks of eleven
    parts = (axes, *_split(pid, PID_CHUNKS), *_split(start, DIGEST_CHUNKS))
    return tuple(CARRIED | part for part in parts)


def _split(value: int, count: int) -> list[int]:
    return [value >> 11 * (count - 1 - chunk) & PAYLOAD for chunk in range(count)]


def _join(parts: list[int]) -> int:
    value = 0
    for part in parts:
        value = value << 11 | part
    return value


def posture_from(read_chunk: Callable[[int], int], pid: int) -> Posture:
    """Read the mark as process `pid`. `read_chunk` returns the errno of prctl(MARK, chunk)."""
    payloads = []
    for chunk in range(CHUNKS):
        number = read_chunk(chunk)
        if not CARRIED <= number <= CARRIED | PAYLOAD:
            return Posture()
        payloads.append(number & PAYLOAD)
    axes, *parts = payloads
    closed = frozenset(name for bit, name in enumerate(AXES) if axes >> bit & 1)
    own = _join(parts[:PID_CHUNKS]) == pid
    return Posture(closed, f"{_join(parts[PID_CHUNKS:]):011x}" if own else "")


def with_mark(rules: Mapping[str, Rule], mark: tuple[int, ...]) -> dict[str, Rule]:
    """`rules`, with the chunks of `mark` added to the rule of prctl."""
    arms = tuple(
        Arm((ArgumentMatch(0, (MARK,)), ArgumentMatch(1, (chunk,))), refuse(number))
        for chunk, number in enumerate(mark)
    )
    prctl = rules["prctl"]
    return {**rules, "prctl": prctl._replace(arms=(*prctl.arms, *arms))}


class Program(NamedTuple):
    """A compiled program without a mark.

    Attributes:
        code: instructions, each of 8 bytes.
        offsets: of the instructions that return the chunks of the mark, in order.
        rules: how many rules it was compiled from.
    """

    code: bytes
    offsets: tuple[int, ...]
    rules: int

    @classmethod
    def compile(cls, table: SyscallTable, rules: Mapping[str, Rule]) -> Program:
        """Compile `rules`. Raises `ValueError` if the positions of the mark aren't found."""
        code = compile_rules(table, with_mark(rules, _PLACEHOLDERS))
        return cls(code, tuple(_offset_of(code, refuse(chunk)) for chunk in _PLACEHOLDERS), len(rules))

    def stamped(self, mark: tuple[int, ...]) -> bytes:
        """The program with `mark`: the same as if its rules had been compiled with it."""
        code = bytearray(self.code)
        for offset, number in zip(self.offsets, mark, strict=True):
            struct.pack_into("=I", code, offset + 4, refuse(number))
        return bytes(code)


def _offset_of(code: bytes, action: int) -> int:
    """The offset of the only instruction that returns `action`."""
    instruction = assemble([ret(action)])
    offset = code.find(instruction)
    if offset < 0 or offset % 8 or code.count(instruction) != 1:
        raise ValueError(f"{action:#x} is not returned in exactly one position")
    return offset
