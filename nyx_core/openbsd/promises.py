"""The arguments of pledge(2) and unveil(2) for a confinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

ALWAYS = ("stdio", "rpath", "flock", "sendfd", "recvfd", "error")
"""What every Python process needs, and `error`, which makes a refused call fail with ENOSYS instead of killing the
process. `sendfd` and `recvfd` pass descriptors that are open already, except of directories.
"""

WRITES = ("wpath", "cpath", "fattr")
NETWORK = ("inet", "dns")
ANY_SOCKET = ("mcast", "unix")
CHILDREN = ("proc", "exec")
"""`proc` permits fork(2), kill(2) and setsid(2), so only a confinement with subprocesses promises it."""

RUNTIME = (
    "/usr/lib", "/usr/libexec/ld.so", "/usr/local/lib", "/var/run/ld.so.hints", "/etc/localtime", "/usr/share/zoneinfo",
    "/etc/malloc.conf", "/dev/urandom",
)  # fmt: skip
"""What the C library, the run-time linker and Python's extension modules open."""

NAMES_AND_TRUST = ("/etc/resolv.conf", "/etc/hosts", "/etc/services", "/etc/protocols", "/etc/ssl")
"""What name resolution and TLS open."""


def promises(wanted: Confinement) -> str:
    """The promises of `wanted`, in the order of this file.

    MINIMAL is `stdio rpath flock sendfd recvfd error wpath cpath fattr inet dns mcast unix prot_exec`; STRICT is
    `stdio rpath flock sendfd recvfd error prot_exec`. Neither has `unveil`, because unveiling is finished by then.
    """
    found = [*ALWAYS]
    if wanted.writable:
        found += WRITES
    if wanted.network.sockets != "none":
        found += NETWORK
    if wanted.network.sockets == "unrestricted":
        found += ANY_SOCKET
    if wanted.subprocess:
        found += CHILDREN
    if wanted.native_code:
        found.append("prot_exec")
    return " ".join(found)


def shortfalls(wanted: Confinement) -> tuple[str, ...]:
    """What `wanted` closes and promises can't, as sentences."""
    found = []
    if wanted.network.sockets == "tcp":
        found.append("inet admits every port, and UDP")
    if wanted.subprocess and not wanted.ipc:
        found.append("proc admits signals to other processes of the user")
    return tuple(found)


def unveils(wanted: Confinement, python_paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Paths and permissions to unveil, sorted; empty if all paths have the same permissions.

    If every path is readable and none writable, the promises alone refuse writing. So a process that pledged before,
    and may no longer unveil, can still be tightened.

    The kernel uses the permissions of the nearest unveiled directory above a file only, so each path also has those of
    every path above it. Each path occurs once, because a second call couldn't add to the first.
    """
    if not wanted.reads_restricted and (not wanted.writes_restricted or not wanted.writable):
        return ()
    asked: dict[str, set[str]] = {}
    runtime = (*RUNTIME, *python_paths) if wanted.python_runtime else ()
    names = NAMES_AND_TRUST if wanted.network.sockets != "none" else ()
    executable = wanted.executable if wanted.subprocess else ()
    for paths, permissions in (
        ((*wanted.readable, *runtime, *names), "r"),
        (wanted.writable, "rwc"),
        (("/dev/null",), "rw"),
        (executable, "rx"),
    ):
        for path in paths:
            asked.setdefault(_plain(path), set()).update(permissions)
    return tuple((path, _inherited(path, asked)) for path in sorted(asked))


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def _inherited(path: str, asked: dict[str, set[str]]) -> str:
    found = {letter for above, letters in asked.items() if _covers(above, path) for letter in letters}
    return "".join(letter for letter in "rwxc" if letter in found)


def _covers(above: str, path: str) -> bool:
    return above in ("/", path) or path.startswith(above + "/")
