"""Compiles rules per system call into a seccomp program of classic BPF. Pure functions.

Theory of operation: a binary search over the call's number jumps to the code of its rule; calls with the same rule
share that code. A rule loads arguments, masks and compares them, and returns an action.

Sources: seccomp(2), `struct seccomp_data` in linux/seccomp.h (number at offset 0, architecture at 4, six arguments of
64 bits from 16 on, low half first), Documentation/networking/filter.rst and linux/bpf_common.h. A program is a list of
instructions of 8 bytes (`struct sock_filter`). Jumps go forward only. Conditional jumps reach 255 instructions, so each
branch here is a conditional skip over an unconditional jump, which reaches any distance.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nyx_core.linux.syscall_table import SyscallTable

LOAD = 0x20  # ld [k]: 32 bits of the data at offset k
AND = 0x54  # and #k
JUMP = 0x05  # ja
EQUAL = 0x15  # jeq #k
AT_LEAST = 0x35  # jge #k
RETURN = 0x06  # ret #k

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS; the kernel refuses longer programs

KILL_PROCESS = 0x8000_0000
ALLOW = 0x7FFF_0000
WORD = 0xFFFF_FFFF


def refuse(number: int) -> int:
    """The action that makes the call fail with this errno (at most 4095)."""
    return 0x0005_0000 | number


class Instruction(NamedTuple):
    """One instruction. `target` is the label that a jump or branch leads to."""

    code: int
    k: int = 0
    target: str = ""


class Label(NamedTuple):
    """A position in the program."""

    name: str


Code = list[Instruction | Label]


def jump(target: str) -> Instruction:
    """Go to the label."""
    return Instruction(JUMP, 0, target)


def ret(action: int) -> Instruction:
    """End with `action`."""
    return Instruction(RETURN, action)


_pack = struct.Struct("=HBBI").pack  # code, instructions to skip if true, and if false, k


def assemble(code: Code) -> bytes:
    """The program in the kernel's format.

    Raises `ValueError` for a label that is missing, defined twice or before its jump, and for a program that is too
    long.
    """
    positions: dict[str, int] = {}
    length = 0
    for item in code:
        if isinstance(item, Label):
            if item.name in positions:
                raise ValueError(f"label {item.name} is defined twice")
            positions[item.name] = length
        else:
            length += 2 if item.code in (EQUAL, AT_LEAST) else 1
    if length > MAX_INSTRUCTIONS:
        raise ValueError(f"{length} instructions, at most {MAX_INSTRUCTIONS}")
    out: list[bytes] = []
    for item in code:
        if isinstance(item, Label):
            continue
        opcode, k, target = item
        if opcode in (EQUAL, AT_LEAST):
            out.append(_pack(opcode, 0, 1, k))
        if not target:
            out.append(_pack(opcode, 0, 0, k))
            continue
        distance = positions.get(target, -1) - len(out) - 1
        if distance < 0:
            raise ValueError(f"jump to {target}: no such label ahead")
        out.append(_pack(JUMP, 0, 0, distance))
    return b"".join(out)


class ArgumentMatch(NamedTuple):
    """Whether 32 bits of one argument, masked with `bits`, are one of `values`.

    The kernel takes most integers as 32 bits and ignores the rest, so the low half must be compared: comparing all 64
    bits would let `TIOCSTI | 1 << 32` through. `high` compares the other half.
    """

    number: int
    values: tuple[int, ...]
    bits: int = WORD
    high: bool = False


class Arm(NamedTuple):
    """The action if every argument matches."""

    arguments: tuple[ArgumentMatch, ...]
    action: int


class Rule(NamedTuple):
    """The action of the first arm that matches, otherwise `default`."""

    default: int
    arms: tuple[Arm, ...] = ()


ALLOWED = Rule(ALLOW)
NO_SUCH_CALL = Rule(refuse(errno.ENOSYS))


def compile_rules(table: SyscallTable, rules: Mapping[str, Rule]) -> bytes:
    """A program that applies `rules` (by name) on the architecture of `table`.

    A call of another architecture kills the process, because its numbers mean other calls. Names that the architecture
    lacks are ignored. A call in the table without a rule is allowed. A number that isn't in the table fails with
    ENOSYS, so that a newer kernel opens nothing; this includes the x32 numbers (`__X32_SYSCALL_BIT` and above).
    """
    runs = _runs(table, rules)
    shared = list(dict.fromkeys(rule for _, rule in runs))
    labels = {rule: f"rule {index}" for index, rule in enumerate(shared)}
    code: Code = [
        Instruction(LOAD, 4),
        Instruction(EQUAL, table.audit_arch, "native"),
        ret(KILL_PROCESS),
        Label("native"),
        Instruction(LOAD, 0),
    ]
    _search(code, [(start, labels[rule]) for start, rule in runs], 0, len(runs))
    for index, rule in enumerate(shared):
        code += [Label(f"rule {index}"), *_rule_code(rule, f"{index}")]
    return assemble(code)


def _runs(table: SyscallTable, rules: Mapping[str, Rule]) -> list[tuple[int, Rule]]:
    """Runs of consecutive numbers with the same rule, each with its first number; the last has no end."""
    runs: list[tuple[int, Rule]] = []
    names, before = table.names, None
    for number in range(max(names) + 2):
        name = names.get(number)
        rule = NO_SUCH_CALL if name is None else rules.get(name, ALLOWED)
        if rule is not before and rule != before:
            runs.append((number, rule))
            before = rule
    return runs


def _search(code: Code, runs: list[tuple[int, str]], first: int, end: int) -> None:
    """Adds a binary search over runs, each with its label: about seven comparisons for any number."""
    if end - first == 1:
        code.append(jump(runs[first][1]))
        return
    middle = (first + end) // 2
    upper = f"from {middle}"
    code.append(Instruction(AT_LEAST, runs[middle][0], upper))
    _search(code, runs, first, middle)
    code.append(Label(upper))
    _search(code, runs, middle, end)


def _rule_code(rule: Rule, name: str) -> Code:
    code: Code = []
    for arm_index, arm in enumerate(rule.arms):
        miss = f"{name}.{arm_index} miss"
        for index, argument in enumerate(arm.arguments):
            hit = f"{name}.{arm_index}.{index} hit"
            code.append(Instruction(LOAD, 16 + 8 * argument.number + 4 * argument.high))
            if argument.bits != WORD:
                code.append(Instruction(AND, argument.bits))
            code += [Instruction(EQUAL, value & WORD, hit) for value in argument.values]
            code += [jump(miss), Label(hit)]
        code += [ret(arm.action), Label(miss)]
    return [*code, ret(rule.default)]
