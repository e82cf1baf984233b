"""Compiles rules per system call into one seccomp program. Pure; knows no policy and no kernel but its data layout.

Sources: seccomp(2), `struct seccomp_data` in linux/seccomp.h:
number at offset 0, architecture at 4, six arguments of 64 bits from 16 on, low half first.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.bpf import Label, Line, answer, assemble, at_least, equal, jump, load, mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nyx_core.linux.syscall_table import SyscallTable

KILL_PROCESS = 0x8000_0000
ALLOW = 0x7FFF_0000
WORD = 0xFFFF_FFFF


def refuse(number: int) -> int:
    """The answer that lets the call fail with this errno (at most 4095)."""
    return 0x0005_0000 | number


UNKNOWN = refuse(errno.ENOSYS)


class Test(NamedTuple):
    """Whether 32 bits of one argument, masked, are one of `values`.

    The kernel takes most integers as 32 bits and ignores the rest, so the low half is what must be compared:
    comparing all 64 bits would let `TIOCSTI | 1 << 32` through. `high` looks at the other half.
    """

    argument: int
    values: tuple[int, ...]
    bits: int = WORD
    high: bool = False


class Arm(NamedTuple):
    """If every test holds, this is the answer."""

    tests: tuple[Test, ...]
    answer: int


class Rule(NamedTuple):
    """The first arm that holds answers; otherwise `otherwise`."""

    otherwise: int
    arms: tuple[Arm, ...] = ()


ALLOWED = Rule(ALLOW)
NO_SUCH_CALL = Rule(UNKNOWN)


def compile_rules(table: SyscallTable, rules: Mapping[str, Rule]) -> bytes:
    """One program that applies `rules` (by name) on the architecture of `table`.

    A call of another architecture ends the process: its numbers mean other calls. Names of `rules` that the
    architecture lacks are ignored. A call that the table knows and no rule names is allowed; a number that the
    table does not know answers ENOSYS, so that a newer kernel opens nothing; the x32 numbers
    (`__X32_SYSCALL_BIT` and above) are such.
    """
    runs = _runs(table, rules)
    shared = list(dict.fromkeys(rule for _, rule in runs))
    labels = {rule: f"rule {index}" for index, rule in enumerate(shared)}
    lines: list[Line] = [
        load(4),
        equal(table.audit_arch, "native"),
        answer(KILL_PROCESS),
        Label("native"),
        load(0),
    ]
    _search(lines, [(start, labels[rule]) for start, rule in runs], 0, len(runs))
    for index, rule in enumerate(shared):
        lines += [Label(f"rule {index}"), *_rule(rule, f"{index}")]
    return assemble(lines)


def _runs(table: SyscallTable, rules: Mapping[str, Rule]) -> list[tuple[int, Rule]]:
    """Runs of neighbouring numbers with one rule, each with the number it starts at; the last has no end."""
    runs: list[tuple[int, Rule]] = []
    names, before = table.names, None
    for number in range(max(names) + 2):
        name = names.get(number)
        rule = NO_SUCH_CALL if name is None else rules.get(name, ALLOWED)
        if rule is not before and rule != before:
            runs.append((number, rule))
            before = rule
    return runs


def _search(lines: list[Line], runs: list[tuple[int, str]], first: int, end: int) -> None:
    """Adds a binary search over runs, each with its label: about seven comparisons for any number."""
    if end - first == 1:
        lines.append(jump(runs[first][1]))
        return
    middle = (first + end) // 2
    upper = f"from {middle}"
    lines.append(at_least(runs[middle][0], upper))
    _search(lines, runs, first, middle)
    lines.append(Label(upper))
    _search(lines, runs, middle, end)


def _rule(rule: Rule, name: str) -> list[Line]:
    lines: list[Line] = []
    for place, arm in enumerate(rule.arms):
        miss = f"{name}.{place} miss"
        for index, test in enumerate(arm.tests):
            hit = f"{name}.{place}.{index} hit"
            lines.append(load(16 + 8 * test.argument + 4 * test.high))
            if test.bits != WORD:
                lines.append(mask(test.bits))
            lines += [equal(value & WORD, hit) for value in test.values]
            lines += [jump(miss), Label(hit)]
        lines += [answer(arm.answer), Label(miss)]
    return [*lines, answer(rule.otherwise)]
