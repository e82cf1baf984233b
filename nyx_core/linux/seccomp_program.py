"""A filter compiled for every mark at once: one program per shape of confinement, stamped for each. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.bpf import answer, assemble
from nyx_core.linux.seccomp_filter import compile_rules, refuse
from nyx_core.linux.seccomp_mark import CHUNKS
from nyx_core.linux.seccomp_rules import marked_rules

if TYPE_CHECKING:
    from nyx_core.linux.seccomp_rules import Shape, Situation
    from nyx_core.linux.syscall_table import SyscallTable

_BLANK = tuple(0x8000 | place for place in range(CHUNKS))  # errno stops at 4095: no rule answers these


class Program(NamedTuple):
    """A program without a mark.

    Attributes:
        code: instructions, each of 8 bytes.
        places: offsets of the instructions that answer the chunks of the mark, in their order.
        rules: how many rules it was made from.
    """

    code: bytes
    places: tuple[int, ...]
    rules: int

    def stamped(self, mark: tuple[int, ...]) -> bytes:
        """The program that carries `mark`: the same as if its rules had been compiled with it."""
        code = bytearray(self.code)
        for place, chunk in zip(self.places, mark, strict=True):
            struct.pack_into("=I", code, place + 4, refuse(chunk))
        return bytes(code)


def compile_shape(table: SyscallTable, shape: Shape, here: Situation) -> Program:
    """Compile the rules of `shape`. Raises `ValueError` if the places of the mark are not found."""
    rules = marked_rules(shape, here, _BLANK)
    code = compile_rules(table, rules)
    return Program(code, tuple(_place(code, refuse(chunk)) for chunk in _BLANK), len(rules))


def _place(code: bytes, value: int) -> int:
    """Where the one instruction stands that answers `value`."""
    wanted = assemble([answer(value)])
    place = code.find(wanted)
    if place < 0 or place % 8 or code.count(wanted) != 1:
        raise ValueError(f"{value:#x} is not answered in exactly one place")
    return place
