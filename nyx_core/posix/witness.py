"""The witness for systems that lock with one layer: attempts one forbidden operation per axis in plain Python."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING

from nyx_core.sandbox.platform import REFUSALS, WitnessAttempt, run_attempts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nyx_core.sandbox.confinement import Confinement
    from nyx_core.sandbox.report import LayerReport, WitnessResult

INVISIBLE = REFUSALS | {errno.ENOENT}  # a path that isn't unveiled doesn't exist


def witness(layer: str, wanted: Confinement, applied: tuple[LayerReport, ...]) -> tuple[WitnessResult, ...]:
    """Attempt everything that `wanted` forbids, if the layer of this name is in force."""
    return run_attempts(_attempts((layer,), wanted), applied)


def _attempts(layers: tuple[str, ...], wanted: Confinement) -> Iterator[WitnessAttempt]:
    if not wanted.subprocess:
        yield WitnessAttempt("subprocess", "fork", layers, _fork)
    if wanted.network.sockets == "none":
        yield WitnessAttempt("network", "bind a TCP port", layers, lambda: _bind(socket.SOCK_STREAM))
    if wanted.network.sockets != "unrestricted":
        yield WitnessAttempt("udp", "bind a UDP port", layers, lambda: _bind(socket.SOCK_DGRAM))
    directory = _forbidden_directory(wanted) if wanted.writes_restricted else None
    if directory is not None:
        yield WitnessAttempt("writes", "create a file", layers, lambda: _create(directory), INVISIBLE)
    if wanted.reads_restricted:
        yield WitnessAttempt("reads", "list /", layers, lambda: os.listdir("/"), INVISIBLE)
    if not wanted.native_code:
        yield WitnessAttempt("native_code", "map executable memory", layers, _map_executable)
    if not wanted.ipc:
        yield WitnessAttempt("ipc", "signal the parent", layers, lambda: os.kill(os.getppid() or 1, 0))


def _fork() -> None:
    with warnings.catch_warnings():
        # Python 3.12 warns about a fork with threads; this child only exits.
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
    for candidate in ("/tmp", "/var/tmp", os.path.dirname(sys.executable)):  # noqa: S108 the file is removed at once
        directory = os.path.realpath(candidate)
        granted = any((directory + "/").startswith(path.rstrip("/") + "/") for path in wanted.writable)
        if not granted and os.access(directory, os.W_OK | os.X_OK):
            return directory
    return None


def _create(directory: str) -> None:
    descriptor, path = tempfile.mkstemp(prefix=".nyx-witness-", dir=directory)
    os.close(descriptor)
    os.unlink(path)


def _map_executable() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
