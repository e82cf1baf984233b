"""Assembles classic BPF for seccomp. Pure: no system call, no policy.

Source: Documentation/networking/filter.rst and linux/bpf_common.h. A program is a list of instructions of 8 bytes
(`struct sock_filter`); jumps go forward only. Conditional jumps reach 255 instructions, so every branch here is a
conditional skip over one unconditional jump, which reaches any distance.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LOAD = 0x20  # ld [k]: 32 bits of the data at offset k
AND = 0x54  # and #k
JUMP = 0x05  # ja
EQUAL = 0x15  # jeq #k
AT_LEAST = 0x35  # jge #k
RETURN = 0x06  # ret #k

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS; the kernel refuses longer programs


class Step(NamedTuple):
    """One instruction. `go` names the label that a jump or branch leads to."""

    code: int
    k: int = 0
    go: str = ""


class Label(NamedTuple):
    """A place in the program."""

    name: str


Line = Step | Label


def load(offset: int) -> Step:
    """Load the 32 bits at `offset` of the data into the accumulator."""
    return Step(LOAD, offset)


def mask(bits: int) -> Step:
    """Keep only `bits` of the accumulator."""
    return Step(AND, bits)


def equal(value: int, go: str) -> Step:
    """Go to the label if the accumulator equals `value`."""
    return Step(EQUAL, value, go)


def at_least(value: int, go: str) -> Step:
    """Go to the label if the accumulator is at least `value`, unsigned."""
    return Step(AT_LEAST, value, go)


def jump(go: str) -> Step:
    """Go to the label."""
    return Step(JUMP, 0, go)


def answer(value: int) -> Step:
    """End with `value`."""
    return Step(RETURN, value)


_instruction = struct.Struct("=HBBI").pack  # code, instructions to skip if true, and if false, k


def assemble(lines: list[Line]) -> bytes:
    """The program as the kernel takes it.

    Raises `ValueError` for a label that is missing, defined twice or behind its jump, and for a program that is
    too long.
    """
    places: dict[str, int] = {}
    length = 0
    for line in lines:
        if isinstance(line, Label):
            if line.name in places:
                raise ValueError(f"label {line.name} is defined twice")
            places[line.name] = length
        else:
            length += 2 if line.code in (EQUAL, AT_LEAST) else 1
    if length > MAX_INSTRUCTIONS:
        raise ValueError(f"{length} instructions, at most {MAX_INSTRUCTIONS}")
    out: list[bytes] = []
    for line in lines:
        if isinstance(line, Label):
            continue
        code, k, go = line
        if code in (EQUAL, AT_LEAST):
            out.append(_instruction(code, 0, 1, k))
        if not go:
            out.append(_instruction(code, 0, 0, k))
            continue
        distance = places.get(go, -1) - len(out) - 1
        if distance < 0:
            raise ValueError(f"jump to {go}: no such label ahead")
        out.append(_instruction(JUMP, 0, 0, distance))
    return b"".join(out)
