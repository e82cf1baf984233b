"""Attempts one forbidden operation per axis after locking. The engine decides what a success means."""

from __future__ import annotations

import errno
import os
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING

from nyx_core.linux.libc import syscall
from nyx_core.linux.privileges import set_capabilities
from nyx_core.sandbox.platform import WitnessAttempt, run_attempts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.report import LayerReport, WitnessResult

SIGCHLD = 17
AF_UNIX, AF_INET = 1, 2
SOCK_STREAM, SOCK_DGRAM = 1, 2
PROT_NONE, PROT_READ, PROT_EXEC = 0, 1, 4
MAP_PRIVATE_ANONYMOUS = 0x22
F_DUPFD = 0
LOOPBACK = bytes((127, 0, 0, 1))
SCRATCH = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 files there get no name


def witness(wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Attempt everything that `wanted` forbids and a layer in force should refuse."""
    limits = {limit.name: limit.soft for report in applied for limit in report.limits}
    return run_attempts((*_attempts(wanted), *_limit_attempts(limits)), applied)


def _attempts(wanted: Confinement) -> Iterator[WitnessAttempt]:
    seccomp = ("seccomp",)
    yield WitnessAttempt("kernel", "unshare(0)", seccomp, lambda: syscall("unshare", 0))
    yield WitnessAttempt("kernel", "ptrace", seccomp, lambda: syscall("ptrace", 0xFFFF, -1, None, None))
    yield WitnessAttempt("kernel", "io_uring_setup", seccomp, lambda: syscall("io_uring_setup", 0, None))
    if not wanted.subprocess:
        yield WitnessAttempt("subprocess", "clone", seccomp, _clone)
        yield WitnessAttempt("subprocess", "execve", seccomp, lambda: syscall("execve", None, None, None))
    yield from _network_attempts(wanted)
    if wanted.writes_restricted:
        yield WitnessAttempt("writes", "create a file", ("landlock", "seccomp"), lambda: _create(wanted))
        yield WitnessAttempt("writes", "fchmod", seccomp, lambda: syscall("fchmod", -1, 0))
    if wanted.reads_restricted:
        yield WitnessAttempt("reads", "list /", ("landlock",), lambda: os.close(os.open("/", os.O_DIRECTORY)))
    if not wanted.native_code:
        yield WitnessAttempt("native_code", "map executable memory", seccomp, _map_executable)
    if not wanted.ipc:
        layers = ("landlock",) if wanted.subprocess else seccomp
        yield WitnessAttempt("ipc", "signal the parent", layers, lambda: os.kill(os.getppid() or 1, 0))
    if not wanted.capabilities:
        yield WitnessAttempt("capabilities", "capset", ("capabilities",), lambda: set_capabilities(0, 1, 0))
    if wanted.run_as is not None:
        yield WitnessAttempt("privileges", "become root", ("privileges",), lambda: os.setresuid(0, 0, 0))


def _network_attempts(wanted: Confinement) -> Iterator[WitnessAttempt]:
    network, landlock = wanted.network, ("landlock",)
    if network.sockets == "unrestricted":
        return
    kinds = {"UDP": (AF_INET, SOCK_DGRAM), "Unix": (AF_UNIX, SOCK_STREAM)}
    if network.sockets == "none":
        kinds["TCP"] = (AF_INET, SOCK_STREAM)
    else:
        yield WitnessAttempt("network", "connect to another port", landlock, lambda: _tcp("connect", network.connect))
        yield WitnessAttempt("network", "bind another port", landlock, lambda: _tcp("bind", network.bind))
    for name, (family, kind) in kinds.items():
        yield WitnessAttempt("network", f"{name} socket", ("seccomp",), partial(_socket, family, kind))


def _limit_attempts(soft: dict[str, int]) -> Iterator[WitnessAttempt]:
    limits, memory, open_files = ("limits",), soft.get("memory", -1), soft.get("open_files", -1)
    if memory > 0:
        refusals = frozenset({errno.ENOMEM})
        yield WitnessAttempt("limits", "map too much memory", limits, lambda: _map(memory + 4096, PROT_NONE), refusals)
    if open_files > 0:
        # EMFILE: more descriptors than that are open already, so not even the one to duplicate can be created.
        refusals = frozenset({errno.EINVAL, errno.EMFILE})
        yield WitnessAttempt("limits", "use too high a descriptor", limits, lambda: _duplicate(open_files), refusals)


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
    """Create a nameless file outside the grants where ordinary permissions would allow it."""
    for directory in (*SCRATCH, os.getcwd()):
        granted = any((directory + "/").startswith(path.rstrip("/") + "/") for path in wanted.writable)
        if granted or not os.access(directory, os.W_OK | os.X_OK):
            continue
        try:
            os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EROFS):
                raise
            continue  # this file system doesn't support nameless files
        return
    os.close(os.open(sys.executable or "/proc/self/exe", os.O_WRONLY))
