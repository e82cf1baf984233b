"""Translates a confinement into a Landlock ruleset for an ABI. Pure functions.

Source: landlock(7) and linux/landlock.h. ABI 1 is Linux 5.13, 2 is 5.19, 3 is 6.2, 4 is 6.7, 5 is 6.10, 6 is 6.12,
7 is 6.15, 8 is 7.0, 9 is 7.1. A bit that the running ABI lacks is EINVAL, so every set of rights is masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

NEWEST_ABI = 9

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
RESOLVE_UNIX = 1 << 16

BIND_TCP = 1 << 0
CONNECT_TCP = 1 << 1

SCOPE_ABSTRACT_UNIX = 1 << 0
SCOPE_SIGNAL = 1 << 1

FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX
"""Rights that a rule for something other than a directory may have; any other is EINVAL."""

READS = READ_FILE | READ_DIR
MAKES = MAKE_CHAR | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_BLOCK | MAKE_SYM
WRITES = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKES | REFER | TRUNCATE | IOCTL_DEV
GRANTED_WRITES = WRITES & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
"""Rights of a writable path: everything except device nodes and their ioctls."""

_SINCE = {REFER: 2, TRUNCATE: 3, IOCTL_DEV: 5, RESOLVE_UNIX: 9}
_NET_SINCE = 4
_SCOPE_SINCE = 6


# What the interpreter and the C library read at run time. Missing paths are skipped.
LIBRARIES = (
    "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
)  # fmt: skip
# Certificates and configuration by name: private keys are in the same directories, and a host may run as root.
TRUST = (
    "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf",
    "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
)  # fmt: skip
TIME = ("/etc/localtime", "/usr/share/zoneinfo")
DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")
NAME_RESOLUTION = (  # getaddrinfo through nss
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/run/systemd/resolve",
)  # fmt: skip


class LandlockPathRule(NamedTuple):
    """Rights below one path. `required`: whether it's an error if the path doesn't exist."""

    path: str
    rights: int
    required: bool = True


class LandlockRuleset(NamedTuple):
    """A ruleset, masked for one ABI.

    Attributes:
        filesystem, network, scoped: handled rights; each is refused unless a rule allows it.
        paths, ports: what is allowed; `ports` maps a TCP port to its rights.
        masked: what this ABI lacks, in words.
    """

    filesystem: int
    network: int
    scoped: int
    paths: tuple[LandlockPathRule, ...]
    ports: tuple[tuple[int, int], ...]
    masked: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to restrict."""
        return not (self.filesystem or self.network or self.scoped)


def rights_of(abi: int) -> int:
    """Every file system right that the ABI has."""
    everything = EXECUTE | READS | WRITES | RESOLVE_UNIX
    return everything & ~sum(bit for bit, since in _SINCE.items() if since > abi)


def ruleset_for(wanted: Confinement, abi: int, python_paths: tuple[str, ...] = ()) -> LandlockRuleset:
    """The ruleset of `wanted` on a kernel with this ABI. `python_paths` are those of the interpreter's own files."""
    filesystem = _handled(wanted)
    network, scoped = _network_and_scopes(wanted)
    supported = rights_of(abi)
    masked = [name for name, bit in _NAMES.items() if filesystem & bit and not supported & bit]
    if network and abi < _NET_SINCE:
        masked.append("tcp ports")
    if scoped and abi < _SCOPE_SINCE:
        masked.append("scopes")
    return LandlockRuleset(
        filesystem=filesystem & supported,
        network=network if abi >= _NET_SINCE else 0,
        scoped=scoped if abi >= _SCOPE_SINCE else 0,
        paths=_path_rules(wanted, python_paths, filesystem & supported),
        ports=_port_rules(wanted) if abi >= _NET_SINCE else (),
        masked=tuple(masked),
    )


_NAMES = {
    "refer": REFER,
    "truncate": TRUNCATE,
    "ioctl on devices": IOCTL_DEV,
    "unix sockets by path": RESOLVE_UNIX,
}


def _handled(wanted: Confinement) -> int:
    handled = 0
    if wanted.reads_restricted:
        handled |= READS
    if wanted.writes_restricted:
        handled |= WRITES
    if "/" not in wanted.executable and handled:
        handled |= EXECUTE
    if handled and wanted.network.sockets != "unrestricted":
        handled |= RESOLVE_UNIX
    return handled


def _network_and_scopes(wanted: Confinement) -> tuple[int, int]:
    if wanted.network.sockets == "unrestricted":
        network, scoped = 0, 0
    else:
        network, scoped = BIND_TCP | CONNECT_TCP, SCOPE_ABSTRACT_UNIX
    return network, scoped if wanted.ipc else scoped | SCOPE_SIGNAL


def _path_rules(wanted: Confinement, python_paths: tuple[str, ...], handled: int) -> tuple[LandlockPathRule, ...]:
    makes = GRANTED_WRITES if wanted.network.sockets == "unrestricted" else GRANTED_WRITES & ~MAKE_SOCK
    rights: dict[str, int] = {}
    for paths, granted in (
        (wanted.readable, READS),
        (wanted.writable, READS | makes),
        (wanted.executable, READ_FILE | EXECUTE),
    ):
        for path in paths:
            rights[path] = rights.get(path, 0) | granted
    rules = [LandlockPathRule(path, right & handled) for path, right in rights.items()]
    if wanted.python_runtime:
        names = () if wanted.network.sockets == "none" else NAME_RESOLUTION
        runtime = dict.fromkeys((*python_paths, *LIBRARIES, *TRUST, *TIME, *DEVICES, *names))
        rules += [LandlockPathRule(path, READS & handled, required=False) for path in runtime]
        rules.append(LandlockPathRule("/dev/null", (READ_FILE | WRITE_FILE | TRUNCATE) & handled, required=False))
    return tuple(rule for rule in rules if rule.rights)


def _port_rules(wanted: Confinement) -> tuple[tuple[int, int], ...]:
    ports: dict[int, int] = dict.fromkeys(wanted.network.connect, CONNECT_TCP)
    for port in wanted.network.bind:
        ports[port] = ports.get(port, 0) | BIND_TCP
    return tuple(sorted(ports.items()))


def uncovered(wanted: Confinement, abi: int) -> tuple[str, ...]:
    """What `wanted` restricts that neither this ABI nor a seccomp filter can enforce, in words.

    `abi` 0 means that Landlock is absent or doesn't cover every thread. A filter can't see paths: it can refuse all
    writing, but not reading of certain paths.
    """
    gaps = []
    if abi == 0:
        if wanted.reads_restricted:
            gaps.append("readable paths")
        if wanted.writes_restricted and wanted.writable:
            gaps.append("writable paths")
        if wanted.subprocess and "/" not in wanted.executable:
            gaps.append("executable paths")
    if abi < _NET_SINCE and wanted.network.sockets == "tcp":
        gaps.append("TCP ports")
    if abi < _SCOPE_SINCE and wanted.subprocess and not wanted.ipc:
        gaps.append("signals to other processes")
    return tuple(gaps)
