"""Tries, after locking, one forbidden act per axis by plain Python, for systems whose lock is one layer.

Each act is harmless should it succeed: it is undone at once. What got through is told; whether that is fatal
is not decided here.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nyx_core.sandbox.report import LayerReport, LayerState, WitnessResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nyx_core.sandbox.confinement import Confinement

REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
INVISIBLE = REFUSALS | {errno.ENOENT}  # a path that is not unveiled does not exist


@dataclass(frozen=True, slots=True)
class Act:
    """One forbidden act, and the answers that refuse it."""

    axis: str
    name: str
    attempt: Callable[[], object]
    refusals: frozenset[int] = REFUSALS


def witness(lock: str, wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Try everything that `wanted` forbids, if the layer named `lock` is in force and so should refuse it."""
    if not any(report.name == lock and report.state is LayerState.ACTIVE for report in applied):
        return ()
    return tuple(_try(act) for act in _acts(wanted))


def _acts(wanted: Confinement) -> Iterator[Act]:
    if not wanted.subprocess:
        yield Act("subprocess", "fork", _fork)
    if wanted.network.sockets == "none":
        yield Act("network", "bind a TCP port", lambda: _bind(socket.SOCK_STREAM))
    if wanted.network.sockets != "unrestricted":
        yield Act("udp", "bind a UDP port", lambda: _bind(socket.SOCK_DGRAM))
    place = _forbidden_directory(wanted)
    if wanted.writes_restricted and place is not None:
        yield Act("writes", "create a file", lambda: _create(place), INVISIBLE)
    if wanted.reads_restricted:
        yield Act("reads", "list /", lambda: os.listdir("/"), INVISIBLE)
    if not wanted.native_code:
        yield Act("native_code", "map executable memory", _map_executable)
    if not wanted.ipc:
        yield Act("ipc", "signal the parent", lambda: os.kill(os.getppid() or 1, 0))


def _try(act: Act) -> WitnessResult:
    try:
        act.attempt()
    except OSError as error:
        number = error.errno or 0
        answer = errno.errorcode.get(number, str(number))
        return WitnessResult(act.axis, act.name, number in act.refusals, answer)
    return WitnessResult(act.axis, act.name, False, "succeeded")


def _fork() -> None:
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; this child does nothing but end.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _bind(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as attempt:
        attempt.bind(("127.0.0.1", 0))


def _forbidden_directory(wanted: Confinement) -> str | None:
    """A directory outside the grants where this user may create files, if one is known."""
    for directory in ("/tmp", "/var/tmp", os.path.dirname(sys.executable)):  # noqa: S108 only what is undone is made
        place = os.path.realpath(directory)
        granted = any((place + "/").startswith(path.rstrip("/") + "/") for path in wanted.writable)
        if not granted and os.access(place, os.W_OK | os.X_OK):
            return place
    return None


def _create(directory: str) -> None:
    descriptor, path = tempfile.mkstemp(prefix=".nyx-witness-", dir=directory)
    os.close(descriptor)
    os.unlink(path)


def _map_executable() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
