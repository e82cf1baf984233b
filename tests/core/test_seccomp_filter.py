"""The compiled filter, run by an interpreter, for every system call number of both architectures."""

import errno
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nyx_core.linux.seccomp_filter import (
    ALLOW,
    KILL_PROCESS,
    MAX_INSTRUCTIONS,
    Label,
    Rule,
    assemble,
    compile_rules,
    jump,
    refuse,
    ret,
)
from nyx_core.linux.seccomp_mark import Program, mark_of, with_mark
from nyx_core.linux.seccomp_rules import SeccompRequest, Situation, rules_for
from nyx_core.linux.syscall_table import SyscallTable, syscall_table
from nyx_core.sandbox import Confinement, Network, ResourceLimits, SandboxPolicy
from nyx_core.sandbox.confinement import confinement_for
from tests.core.bpf_machine import Call, run

PID = 4321
EPERM, ENOSYS = refuse(errno.EPERM), refuse(errno.ENOSYS)
X86_64, AARCH64 = syscall_table("x86_64"), syscall_table("aarch64")
TABLES = [pytest.param(table, id=table.machine) for table in (X86_64, AARCH64)]
SEALED = Confinement()
CONFINEMENTS = {
    "sealed": SEALED,
    "sealed without native code": Confinement(native_code=False),
    "with a writable path": Confinement(writable=("/data",)),
    "minimal": confinement_for(SandboxPolicy.MINIMAL),
    "strict": confinement_for(SandboxPolicy.STRICT),
    "tcp": Confinement(network=Network.tcp(connect=(443,))),
    "tcp server": Confinement(network=Network.tcp(bind=(8080,))),
    "unrestricted network": Confinement(network=Network.unrestricted()),
    "subprocesses": Confinement(subprocess=True),
}
ARGUMENTS = (0, 1, 2, 4, 5, 6, PID, 0x1_0000, 0x1001_0000, 0o1101, 0x2000_0000, 0x5412, 1 << 32 | 0x5412, 2**64 - 1)

# From the design, by hand: what a sealed process may never do, and what every Python needs.
NEVER = tuple(
    """
    execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp io_uring_setup io_uring_enter
    io_uring_register unshare setns mount umount2 move_mount open_tree fsopen fsconfig fsmount fspick
    mount_setattr chroot pivot_root memfd_create bpf perf_event_open userfaultfd keyctl add_key request_key
    name_to_handle_at open_by_handle_at init_module finit_module delete_module kexec_load kexec_file_load
    fanotify_init mknodat shmget shmat semget msgget mq_open fchmodat fchownat utimensat setxattr lsetxattr
    socket connect bind listen
    """.split()  # noqa: SIM905 a table of names reads better as text
)
ALWAYS = tuple(
    """
    read write close fstat lseek mmap munmap brk rt_sigaction rt_sigprocmask futex exit exit_group getpid gettid
    clock_gettime getrandom epoll_create1 epoll_ctl epoll_pwait eventfd2 pipe2 openat getdents64 madvise mremap
    set_robust_list rseq sched_yield sigaltstack nanosleep recvmsg sendmsg landlock_create_ruleset seccomp statx
    """.split()  # noqa: SIM905 a table of names reads better as text
)


def rules_of(wanted: Confinement, landlock: int = 7) -> dict[str, Rule]:
    """The rules with the mark, as they are installed."""
    return with_mark(rules_for(SeccompRequest.of(wanted), Situation(PID, landlock)), mark_of(wanted, PID))


def program(table: SyscallTable, wanted: Confinement, landlock: int = 7) -> bytes:
    return compile_rules(table, rules_of(wanted, landlock))


def naive(rule: Rule, arguments: tuple[int, ...]) -> int:
    """The action of a rule, by its definition."""
    for arm in rule.arms:
        words = [(arguments[match.number] >> 32 * match.high & 0xFFFF_FFFF, match) for match in arm.arguments]
        if all(word & match.bits in match.values for word, match in words):
            return arm.action
    return rule.default


def vectors() -> Iterator[tuple[int, ...]]:
    for value, other in itertools.product(ARGUMENTS, (0, 1, PID, 2**63)):
        yield (value, other, 0, value, other, 0)
        yield (other, value, value, 0, value, 0)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", CONFINEMENTS)
def test_every_number_gets_the_action_of_its_rule(table: SyscallTable, name: str) -> None:
    """The program agrees with the rule of each number; unknown numbers fail with ENOSYS."""
    rules = rules_of(CONFINEMENTS[name])
    code = compile_rules(table, rules)
    for number in range(max(table.names) + 64):
        call = table.names.get(number)
        rule = rules.get(call, Rule(ALLOW)) if call else Rule(ENOSYS)
        vectors_to_try = list(vectors()) if rule.arms else [(0,) * 6, (2**64 - 1,) * 6]
        for arguments in vectors_to_try:
            got = run(code, Call(number, table.audit_arch, arguments))
            assert got == naive(rule, arguments), (call or number, arguments)


@pytest.mark.parametrize("table", TABLES)
def test_what_a_sealed_process_may_never_do(table: SyscallTable) -> None:
    """Every call that the design lists is refused with any arguments."""
    code = program(table, SEALED)
    for name in NEVER:
        number = table.numbers[name]
        actions = {run(code, Call(number, table.audit_arch, arguments)) for arguments in vectors()}
        assert actions == {EPERM}, name


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", CONFINEMENTS)
def test_what_python_needs_is_allowed(table: SyscallTable, name: str) -> None:
    """Memory, threads, clocks, pipes and reading files pass every filter."""
    code = program(table, CONFINEMENTS[name])
    for call in ALWAYS:
        if call in table.numbers:
            assert run(code, Call(table.numbers[call], table.audit_arch)) == ALLOW, call


@pytest.mark.parametrize("table", TABLES)
def test_another_architecture_kills(table: SyscallTable) -> None:
    """The numbers of another architecture mean other calls, so any number kills the process."""
    code = program(table, SEALED)
    for arch in (0x4000_0003, 0x4000_0028, 0xC000_003E ^ 0xC000_00B7 ^ table.audit_arch, 0):
        assert {run(code, Call(number, arch)) for number in range(500)} == {KILL_PROCESS}


@pytest.mark.parametrize("table", TABLES)
def test_x32_and_unknown_numbers_do_not_exist(table: SyscallTable) -> None:
    """Numbers with the x32 bit, negative ones and those of newer kernels fail with ENOSYS."""
    code = program(table, confinement_for(SandboxPolicy.MINIMAL))
    numbers = [*(0x4000_0000 | number for number in range(600)), -1, 0x7FFF_FFFF, max(table.names) + 1]
    assert {run(code, Call(number, table.audit_arch)) for number in numbers} == {ENOSYS}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("landlock", [0, 1, 2, 3, 7])
def test_every_program_fits_the_kernel(table: SyscallTable, landlock: int) -> None:
    """No confinement needs more instructions than the kernel accepts."""
    for wanted in CONFINEMENTS.values():
        assert len(program(table, wanted, landlock)) // 8 < MAX_INSTRUCTIONS // 4


def sealed(name: str, *arguments: int, wanted: Confinement = SEALED, landlock: int = 7) -> int:
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    return run(program(X86_64, wanted, landlock), Call(X86_64.numbers[name], X86_64.audit_arch, padded))


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("clone", (0x3D0F00,), True),  # what pthread_create asks for
        ("clone", (0x3D0F00 | 1 << 40,), True),  # the kernel looks at the low half only
        ("clone", (17,), False),
        ("clone", (0x3D0F00 | 0x1000_0000,), False),
        ("socketpair", (1, 1 | 0o2000000), True),
        ("socketpair", (1, 5), True),
        ("socketpair", (1, 2), False),
        ("socketpair", (2, 1), False),
        ("sendto", (3, 0, 0, 0, 0), True),
        ("sendto", (3, 0, 0, 0, 0x7000), False),
        ("sendto", (3, 0, 0, 0, 1 << 32), False),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),
        ("ioctl", (0, 0x5412 | 1 << 32), False),
        ("ioctl", (0, 0x541C | 1 << 63), False),
        ("ioctl", (0, 0x8901), False),
        ("ioctl", (0, 0x4008_6602), False),
        ("fcntl", (3, 2), True),
        ("fcntl", (3, 8), False),
        ("fcntl", (3, 1024), False),
        ("kill", (PID, 9), True),
        ("kill", (PID | 1 << 32, 9), True),
        ("kill", (0, 9), False),
        ("kill", (2**64 - 1, 9), False),
        ("tgkill", (PID, 77, 9), True),
        ("tgkill", (1, 77, 9), False),
        ("prlimit64", (0,), True),
        ("prlimit64", (PID,), True),
        ("prlimit64", (1,), False),
        ("setpriority", (0, 0), True),
        ("setpriority", (1, 0), False),
        ("personality", (0xFFFF_FFFF,), True),
        ("personality", (0x40000,), False),
        ("prctl", (38, 1), True),
        ("prctl", (0x5961_6D61,), False),
        ("prctl", (1, 0), False),
        ("prctl", (1 | 1 << 32, 0), False),
        ("prctl", (2, 0), True),
    ],
)
def test_arguments_decide(name: str, arguments: tuple[int, ...], allowed: bool) -> None:
    """A call that is allowed for certain arguments is allowed for exactly those."""
    assert sealed(name, *arguments) == (ALLOW if allowed else EPERM)


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("socket", (2, 1, 0), True),
        ("socket", (10, 1 | 0o2004000, 6), True),
        ("socket", (2, 2, 0), False),
        ("socket", (2, 1, 262), False),  # MPTCP passes no Landlock hook
        ("socket", (1, 1, 0), False),
        ("socket", (16, 3, 0), False),
        ("connect", (3, 0, 16), True),
        ("bind", (3, 0, 16), True),
        ("listen", (3, 1), False),
        ("sendto", (3, 0, 0, 0x2000_0000), False),
        ("sendmsg", (3, 0, 0x2000_0000), False),
        ("sendmsg", (3, 0, 0x4000), True),
        ("setsockopt", (3, 6, 1), True),
        ("setsockopt", (3, 6, 31), False),
    ],
)
def test_tcp_alone(name: str, arguments: tuple[int, ...], allowed: bool) -> None:
    """With TCP ports granted, only TCP sockets are allowed, and no call that bypasses Landlock."""
    assert sealed(name, *arguments, wanted=CONFINEMENTS["tcp"]) == (ALLOW if allowed else EPERM)


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [(0, True), (0o2000000, True), (1, False), (2, False), (0o100, False), (0o1000, False), (0o20200002, False)],
)
def test_without_landlock_no_file_is_opened_for_writing(flags: int, allowed: bool) -> None:
    """If Landlock doesn't cover the process, the filter refuses every open that could write."""
    strict = confinement_for(SandboxPolicy.STRICT)
    assert sealed("openat", -100, 0, flags, wanted=strict, landlock=0) == (ALLOW if allowed else EPERM)
    assert sealed("open", 0, flags, wanted=strict, landlock=0) == (ALLOW if allowed else EPERM)
    assert sealed("openat2", wanted=strict, landlock=0) == ENOSYS


def test_before_abi_3_nothing_is_truncated() -> None:
    """Landlock can't mediate truncation before ABI 3, so the filter refuses it."""
    wanted = CONFINEMENTS["with a writable path"]
    assert sealed("truncate", wanted=wanted, landlock=2) == EPERM
    assert sealed("openat", -100, 0, 0o1000, wanted=wanted, landlock=2) == EPERM
    assert sealed("openat", -100, 0, 0o1101, wanted=wanted, landlock=2) == ALLOW
    assert sealed("truncate", wanted=wanted, landlock=3) == ALLOW


@pytest.mark.parametrize("prot", [4, 5, 7, 1 << 32 | 4])
@pytest.mark.parametrize("name", ["mmap", "mprotect", "pkey_mprotect"])
def test_frozen_native_code(name: str, prot: int) -> None:
    """Once native code is frozen, no memory becomes executable, and ordinary memory still maps."""
    frozen = CONFINEMENTS["sealed without native code"]
    assert sealed(name, 0, 4096, prot, wanted=frozen) == EPERM
    assert sealed(name, 0, 4096, 3, wanted=frozen) == ALLOW
    assert sealed(name, 0, 4096, prot) == ALLOW


def test_the_tables_agree_on_the_calls_they_share() -> None:
    """From 424 on, calls have the same number on both architectures, and each name has one number."""
    for table in (X86_64, AARCH64):
        assert len(table.numbers) == len(table.names)
    assert all(AARCH64.names[number] == X86_64.names[number] for number in range(424, 471))
    assert (X86_64.numbers["execve"], AARCH64.numbers["execve"]) == (59, 221)
    assert (X86_64.numbers["rseq"], AARCH64.numbers["rseq"]) == (334, 293)


def test_rules_name_calls_that_exist() -> None:
    """A misspelt name would refuse nothing, so every rule must name a call of one of the tables."""
    known = set(X86_64.numbers) | set(AARCH64.numbers)
    for wanted, landlock in itertools.product(CONFINEMENTS.values(), (0, 2, 7)):
        assert set(rules_of(wanted, landlock)) <= known


@pytest.mark.parametrize(
    "lines",
    [[jump("nowhere"), ret(0)], [Label("a"), jump("a")], [Label("a"), Label("a"), ret(0)], [ret(0)] * 4097],
)
def test_the_assembler_refuses_programs_that_cannot_run(lines: list[object]) -> None:
    """Missing, backward and duplicate labels and programs that are too long are errors."""
    with pytest.raises(ValueError, match=r"label|instructions"):
        assemble(lines)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", CONFINEMENTS)
def test_a_compiled_program_serves_every_mark(table: SyscallTable, name: str) -> None:
    """A program compiled for another confinement with the same request works with another mark."""
    wanted = CONFINEMENTS[name]
    other = replace(wanted, limits=ResourceLimits(memory=None), keep_descriptors=(7,), umask=0, python_runtime=False)
    request = SeccompRequest.of(other)
    assert request == SeccompRequest.of(wanted)
    compiled = Program.compile(table, rules_for(request, Situation(PID, 7)))
    stamped = compiled.stamped(mark_of(wanted, PID))
    assert stamped == program(table, wanted)
    assert stamped != program(table, other)
