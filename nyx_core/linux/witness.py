"""Tries, after locking, one forbidden act per axis, and tells what got through. Whether that is fatal others decide.

Each act is harmless should it succeed: it is undone at once, or its arguments are such that a kernel that is reached
answers something else (EFAULT, EBADF, EINVAL) than one that is not (EPERM, EACCES, ENOSYS).
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.capabilities import set_capabilities
from nyx_core.linux.libc import syscall
from nyx_core.sandbox.report import LayerReport, LayerState, WitnessResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nyx_core.sandbox.confinement import Confinement

REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
SIGCHLD = 17
AF_UNIX, AF_INET = 1, 2
SOCK_STREAM, SOCK_DGRAM = 1, 2
PROT_NONE, PROT_READ, PROT_EXEC = 0, 1, 4
MAP_PRIVATE_ANONYMOUS = 0x22
F_DUPFD = 0
LOOPBACK = bytes((127, 0, 0, 1))
SCRATCH = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 nothing is created there by name


class Act(NamedTuple):
    """One forbidden act. It is tried if any of `layers` is in force."""

    axis: str
    name: str
    layers: tuple[str, ...]
    attempt: Callable[[], object]
    refusals: frozenset[int] = REFUSALS


def witness(wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Try everything that `wanted` forbids and some layer in force should refuse."""
    active = {report.name for report in applied if report.state is LayerState.ACTIVE or report.stand_in}
    limits = {limit.name: limit.soft for report in applied for limit in report.limits}
    acts = (*_acts(wanted), *_limit_acts(limits))
    return tuple(_try(act) for act in acts if active.intersection(act.layers))


def _try(act: Act) -> WitnessResult:
    try:
        act.attempt()
    except OSError as error:
        number = error.errno or 0
        answer = errno.errorcode.get(number, str(number))
        return WitnessResult(act.axis, act.name, number in act.refusals, answer)
    return WitnessResult(act.axis, act.name, False, "succeeded")


def _acts(wanted: Confinement) -> Iterator[Act]:
    seccomp = ("seccomp",)
    yield Act("kernel", "unshare(0)", seccomp, lambda: syscall("unshare", 0))
    yield Act("kernel", "ptrace", seccomp, lambda: syscall("ptrace", 0xFFFF, -1, None, None))
    yield Act("kernel", "io_uring_setup", seccomp, lambda: syscall("io_uring_setup", 0, None))
    if not wanted.subprocess:
        yield Act("subprocess", "clone", seccomp, _clone)
        yield Act("subprocess", "execve", seccomp, lambda: syscall("execve", None, None, None))
    yield from _network_acts(wanted)
    if wanted.writes_restricted:
        yield Act("writes", "create a file", ("landlock", "seccomp"), lambda: _create(wanted))
        yield Act("writes", "fchmod", seccomp, lambda: syscall("fchmod", -1, 0))
    if wanted.reads_restricted:
        yield Act("reads", "list /", ("landlock",), lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)))
    if not wanted.native_code:
        yield Act("native_code", "map executable memory", seccomp, _map_executable)
    if not wanted.ipc:
        layers = ("landlock",) if wanted.subprocess else seccomp
        yield Act("ipc", "signal the parent", layers, lambda: os.kill(os.getppid() or 1, 0))
    if not wanted.capabilities:
        yield Act("capabilities", "capset", ("capabilities",), lambda: set_capabilities(0, 1, 0))
    if wanted.run_as is not None:
        yield Act("privileges", "become root", ("privileges",), lambda: os.setresuid(0, 0, 0))


def _network_acts(wanted: Confinement) -> Iterator[Act]:
    if wanted.network.sockets == "unrestricted":
        return
    kinds = {"UDP": (AF_INET, SOCK_DGRAM), "Unix": (AF_UNIX, SOCK_STREAM)}
    if wanted.network.sockets == "none":
        kinds["TCP"] = (AF_INET, SOCK_STREAM)
    else:
        yield Act(
            "network",
            "connect to another port",
            ("landlock",),
            lambda: _tcp("connect", wanted.network.connect),
        )
        yield Act("network", "bind another port", ("landlock",), lambda: _tcp("bind", wanted.network.bind))
    for name, (family, kind) in kinds.items():
        yield Act("network", f"{name} socket", ("seccomp",), partial(_socket, family, kind))


def _limit_acts(soft: dict[str, int]) -> Iterator[Act]:
    if soft.get("memory", -1) > 0:
        size = soft["memory"] + 4096
        yield Act(
            "limits",
            "map too much memory",
            ("limits",),
            lambda: _map(size, PROT_NONE),
            frozenset({errno.ENOMEM}),
        )
    if soft.get("open_files", -1) > 0:
        # EMFILE: more descriptors than that are open already, so not even the one to duplicate can be made.
        full = frozenset({errno.EINVAL, errno.EMFILE})
        yield Act("limits", "use too high a descriptor", ("limits",), lambda: _duplicate(soft["open_files"]), full)


def _clone() -> None:
    child = syscall("clone", SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _socket(family: int, kind: int) -> None:
    os.close(syscall("socket", family, kind, 0))


def _tcp(call: str, granted: tuple[int, ...]) -> None:
    port = next(port for port in range(1, 65536) if port not in granted)
    descriptor = syscall("socket", AF_INET, SOCK_STREAM, 0)
    try:
        address = struct.pack("=H", AF_INET) + struct.pack(">H", port) + LOOPBACK + bytes(8)
        syscall(call, descriptor, address, len(address))
    finally:
        os.close(descriptor)


def _map(size: int, protection: int) -> None:
    address = syscall("mmap", 0, size, protection, MAP_PRIVATE_ANONYMOUS, -1, 0)
    syscall("munmap", address, size)


def _map_executable() -> None:
    _map(4096, PROT_READ | PROT_EXEC)


def _duplicate(number: int) -> None:
    descriptor = syscall("eventfd2", 0, 0)
    try:
        os.close(syscall("fcntl", descriptor, F_DUPFD, number))
    finally:
        os.close(descriptor)


def _create(wanted: Confinement) -> None:
    """Make a nameless file somewhere outside the grants where ordinary permissions would allow it."""
    for directory in (*SCRATCH, os.getcwd()):
        granted = any((directory + "/").startswith(path.rstrip("/") + "/") for path in wanted.writable)
        if granted or not os.access(directory, os.W_OK | os.X_OK):
            continue
        try:
            os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EROFS):
                raise
            continue  # this file system makes no nameless files
        return
    os.close(os.open(sys.executable or "/proc/self/exe", os.O_WRONLY))
