"""What the OS layer is asked to do: frozen values, checked when built. Does no I/O and knows no platform."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from enum import Enum

MIB = 1024 * 1024
PORTS = range(1, 65536)


class SandboxPolicy(Enum):
    """The two ready-made confinements of `apply_policy`."""

    MINIMAL = "minimal"
    STRICT = "strict"


class SandboxStatus(Enum):
    """What `apply_policy` answers when it does not raise."""

    APPLIED = "applied"
    UNSUPPORTED = "unsupported"


class Limit(namedtuple("Limit", "soft hard")):  # noqa: PYI024  # `typing` takes an eighth of what the import does
    """A soft and a hard limit in one unit; `soft` never exceeds `hard`."""

    soft: int
    hard: int

    __slots__ = ()

    @classmethod
    def of(cls, value: int) -> Limit:
        """The same value as soft and hard limit."""
        return cls(value, value)


GUIDE_MEMORY = Limit(64 * MIB, 128 * MIB)
GUIDE_OPEN_FILES = Limit(64, 128)
GUIDE_PROCESSES = Limit(10, 50)
NO_CORE = Limit(0, 0)


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Limits on one process. `None` leaves the limit that is in force.

    Attributes:
        memory: bytes of address space (`RLIMIT_AS`).
        open_files: descriptors (`RLIMIT_NOFILE`).
        processes: processes and threads of the user (`RLIMIT_NPROC`).
        cpu_seconds: seconds of processor time (`RLIMIT_CPU`).
        file_size: bytes of any one file written (`RLIMIT_FSIZE`).
        core: bytes of a core dump (`RLIMIT_CORE`).
    """

    memory: Limit | None = GUIDE_MEMORY
    open_files: Limit | None = GUIDE_OPEN_FILES
    processes: Limit | None = GUIDE_PROCESSES
    cpu_seconds: Limit | None = None
    file_size: Limit | None = None
    core: Limit | None = NO_CORE

    def __post_init__(self) -> None:
        for name in self.__slots__:
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit.soft <= limit.hard:
                raise ValueError(f"limit {name} {limit.soft}/{limit.hard}: want 0 <= soft <= hard")


@dataclass(frozen=True, slots=True)
class Network:
    """Which sockets a process may have. Build it with `none`, `tcp` or `unrestricted`.

    `connect` and `bind` are TCP ports, and mean something only when `sockets` is `"tcp"`.
    """

    sockets: str = "none"
    connect: tuple[int, ...] = ()
    bind: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.sockets not in ("none", "tcp", "unrestricted"):
            raise ValueError(f"network {self.sockets!r}: want none, tcp or unrestricted")
        for port in (*self.connect, *self.bind):
            if port not in PORTS:
                raise ValueError(f"TCP port {port!r}: want 1 to 65535")
        if self.sockets != "tcp" and (self.connect or self.bind):
            raise ValueError(f"ports are given, but the network is {self.sockets}")

    @classmethod
    def none(cls) -> Network:
        """No socket but a connected pair of Unix sockets (asyncio needs one)."""
        return cls()

    @classmethod
    def tcp(cls, *, connect: tuple[int, ...] = (), bind: tuple[int, ...] = ()) -> Network:
        """TCP over IPv4 and IPv6, to and on these ports only."""
        return cls("tcp", tuple(connect), tuple(bind))

    @classmethod
    def unrestricted(cls) -> Network:
        """Every kind of socket that the process may have already."""
        return cls("unrestricted")


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user and group a process becomes; supplementary groups are dropped."""

    uid: int
    gid: int

    def __post_init__(self) -> None:
        if self.uid < 1 or self.gid < 1:
            raise ValueError("run as: uid and gid must be above 0")


@dataclass(frozen=True, slots=True)
class Confinement:
    """Everything that may be asked of the OS layer. With no arguments it grants next to nothing.

    Paths are absolute; each covers itself and what lies below it. `"/"` in one of the three leaves that
    kind of access as it is.

    Attributes:
        limits: resource limits, clamped to the hard limits in force.
        readable: paths that may be opened for reading and listed.
        writable: paths below which files may be read, written, created, renamed and removed.
        executable: paths below which files may be executed; useless without `subprocess`.
        python_runtime: the interpreter may go on reading its standard library and installed packages.
        network: which sockets may be made.
        subprocess: may fork and exec.
        native_code: may map new executable memory, and so load extension modules.
        environment: names of the variables that stay; `None` keeps all of them.
        keep_descriptors: descriptors that stay open; `None` keeps all of them.
        ipc: may signal other processes and share memory, semaphores and message queues with them.
        capabilities: may keep its capabilities (Linux) but for `CAP_SYS_RESOURCE`, which lifts limits;
            otherwise all are dropped for good.
        run_as: user and group to become; `None` stays as it is.
        umask: file mode creation mask.
        working_directory: directory to change to first; `None` stays.
        new_session: leave the controlling terminal and unblock every signal.
        namespaces: any of `"user"`, `"mount"`, `"pid"`, `"net"` (Linux).
        cgroup: put the process into a cgroup of its own, with the memory and process limits (cgroup v2).
        may_degrade: names of layers whose failure is reported instead of raised.
        policy: the policy that this was made from, for the environment and the report.
    """

    limits: ResourceLimits = field(default_factory=ResourceLimits)
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    executable: tuple[str, ...] = ()
    python_runtime: bool = True
    network: Network = field(default_factory=Network)
    subprocess: bool = False
    native_code: bool = True
    ipc: bool = False
    environment: tuple[str, ...] | None = ()
    keep_descriptors: tuple[int, ...] | None = (0, 1, 2)
    capabilities: bool = False
    run_as: RunAs | None = None
    umask: int = 0o077
    working_directory: str | None = None
    new_session: bool = False
    namespaces: frozenset[str] = frozenset()
    cgroup: bool = False
    may_degrade: frozenset[str] = frozenset({"namespaces", "cgroup"})
    policy: SandboxPolicy | None = None

    def __post_init__(self) -> None:
        for path in (*self.readable, *self.writable, *self.executable):
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"path {path!r}: want an absolute path without NUL")
        unknown = self.namespaces - {"user", "mount", "pid", "net"}
        if unknown:
            raise ValueError(f"unknown namespaces: {', '.join(sorted(unknown))}")
        if self.run_as is not None and "user" in self.namespaces:
            raise ValueError("run_as and a user namespace exclude each other: only the own user is mapped there")
        if not 0 <= self.umask <= 0o777:
            raise ValueError(f"umask {self.umask:#o}: want 0 to 0o777")

    @property
    def writes_restricted(self) -> bool:
        """Whether opening files for writing is restricted at all."""
        return "/" not in self.writable

    @property
    def reads_restricted(self) -> bool:
        """Whether opening files for reading is restricted at all."""
        return "/" not in self.readable

    @property
    def closed(self) -> frozenset[str]:
        """Names of the axes that this confinement closes, wholly or in part. A later one may close more."""
        axes = {
            "subprocess": not self.subprocess,
            "network": self.network.sockets == "none",
            "udp": self.network.sockets != "unrestricted",
            "writes": self.writes_restricted,
            "reads": self.reads_restricted,
            "native_code": not self.native_code,
            "ipc": not self.ipc,
        }
        return frozenset(name for name, closed in axes.items() if closed)

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything asked for: equal confinements have equal digests."""
        import hashlib  # loads OpenSSL, which whoever only builds a confinement does not need

        parts = [f"{name}={_stable(getattr(self, name))}" for name in self.__slots__]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _stable(value: object) -> str:
    """A text that is the same in every process: sets have no order of their own."""
    return repr(sorted(value)) if isinstance(value, frozenset) else repr(value)
