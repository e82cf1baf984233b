"""The seatbelt profile of a confinement, as text.

Source: the profiles in /System/Library/Sandbox/Profiles and /usr/share/sandbox of macOS 10.14 to 15; Apple
doesn't document the language. Among the rules that match, the last one decides. Rules match canonical paths: `/tmp` is
`/private/tmp`, so the caller resolves links first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement, Network

RUNTIME = (
    "/usr/lib", "/usr/share", "/System/Library", "/System/Volumes/Preboot/Cryptexes", "/private/etc/localtime",
    "/private/etc/ssl", "/private/var/db/dyld", "/private/var/db/timezone", "/dev/null", "/dev/random", "/dev/urandom",
)  # fmt: skip
"""What the C library, the dynamic linker and Python's extension modules open."""

NAMES = ("/private/etc/hosts", "/private/etc/resolv.conf", "/private/etc/services", "/private/etc/protocols")
RESOLVER = "/private/var/run/mDNSResponder"

CHILDREN = (
    "(deny process-fork)",
    "(deny process-exec*)",
    # With these, launchd or LaunchServices would start a program outside this sandbox.
    "(deny job-creation)",
    "(deny lsopen)",
    "(deny appleevent-send)",
    '(deny mach-lookup (global-name "com.apple.coreservices.launchservicesd"))',
)
OTHER_PROCESSES = (
    "(deny signal)",
    "(allow signal (target self))",
    "(deny process-info*)",
    "(allow process-info* (target self))",
    "(deny mach-priv-task-port)",
    "(deny ipc-posix*)",
    '(allow ipc-posix-shm-read* (ipc-posix-name "apple.shm.notification_center"))',
    "(deny ipc-sysv*)",
)
NEW_CODE = ("(deny dynamic-code-generation)", "(deny file-map-executable)")
NO_RESOLVER = '(deny mach-lookup (global-name "com.apple.dnssd.service"))'


def profile(wanted: Confinement, python_paths: tuple[str, ...]) -> str:
    """The profile, one rule per line. Raises `ValueError` for a path that a profile can't contain.

    Paths in `wanted` and `python_paths`, which has the interpreter's own files, are canonical.
    """
    rules = ["(version 1)", "(allow default)"]
    rules += _execution(wanted)
    if not wanted.ipc:
        rules += OTHER_PROCESSES
    rules += _network(wanted.network)
    rules += _files(wanted, python_paths)
    if not wanted.native_code:
        rules += NEW_CODE
    return "\n".join(rules) + "\n"


def quoted(path: str) -> str:
    """`path` as a string of the profile language. Raises `ValueError` if it has control characters."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in path):
        raise ValueError(f"path {path!r}: a seatbelt profile cannot contain control characters")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _execution(wanted: Confinement) -> tuple[str, ...]:
    if not wanted.subprocess:
        return CHILDREN
    if "/" in wanted.executable:
        return ()
    denied = ("(deny process-exec*)",)
    return denied + _allowed("process-exec*", wanted.executable)


def _network(network: Network) -> tuple[str, ...]:
    if network.sockets == "unrestricted":
        return ()
    if network.sockets == "none":
        return ("(deny network*)", NO_RESOLVER)
    ports = [f'(allow network-outbound (remote tcp "*:{port}"))' for port in network.connect]
    for port in network.bind:
        ports.append(f'(allow network-bind (local tcp "*:{port}"))')
        ports.append(f'(allow network-inbound (local tcp "*:{port}"))')
    return ("(deny network*)", *ports, f"(allow network-outbound (literal {quoted(RESOLVER)}))")


def _files(wanted: Confinement, python_paths: tuple[str, ...]) -> tuple[str, ...]:
    rules: tuple[str, ...] = ()
    if wanted.reads_restricted:
        runtime = (*RUNTIME, *python_paths) if wanted.python_runtime else ()
        names = NAMES if wanted.network.sockets != "none" else ()
        executable = wanted.executable if wanted.subprocess else ()
        readable = (*wanted.readable, *wanted.writable, *executable, *runtime, *names)
        # Resolving a path reads metadata of its parents, so names and sizes stay visible; content doesn't.
        rules += ("(deny file-read*)", "(allow file-read-metadata)", *_allowed("file-read*", readable))
    if wanted.writes_restricted:
        rules += ("(deny file-write*)", *_allowed("file-write*", wanted.writable))
        rules += ('(allow file-write-data (literal "/dev/null"))',)
    return rules


def _allowed(operation: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"(allow {operation} (subpath {quoted(path)}))" for path in dict.fromkeys(paths))
