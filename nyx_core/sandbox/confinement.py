"""What a process is confined to: frozen values, checked when built, and the two ready-made policies."""

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
    """The result of `apply_policy`."""

    APPLIED = "applied"
    UNSUPPORTED = "unsupported"


class Limit(namedtuple("Limit", "soft hard")):  # noqa: PYI024  # importing `typing` takes an eighth of this import
    """A soft and a hard limit in one unit; `soft` never exceeds `hard`."""

    soft: int
    hard: int

    __slots__ = ()

    @classmethod
    def of(cls, value: int) -> Limit:
        """A limit with the same soft and hard value."""
        return cls(value, value)


GUIDE_MEMORY = Limit(64 * MIB, 128 * MIB)
GUIDE_OPEN_FILES = Limit(64, 128)
GUIDE_PROCESSES = Limit(10, 50)
NO_CORE = Limit(0, 0)


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Limits on one process. `None` keeps the limit that is in force.

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

    `connect` and `bind` are TCP ports, used only if `sockets` is `"tcp"`.
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
        """No sockets except a connected pair of Unix sockets (asyncio needs one)."""
        return cls()

    @classmethod
    def tcp(cls, *, connect: tuple[int, ...] = (), bind: tuple[int, ...] = ()) -> Network:
        """TCP over IPv4 and IPv6, connecting to and binding these ports only."""
        return cls("tcp", tuple(connect), tuple(bind))

    @classmethod
    def unrestricted(cls) -> Network:
        """No restriction on sockets."""
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
    """Everything that can be requested of the OS layer. The defaults grant next to nothing.

    Paths are absolute; each covers itself and everything below. `"/"` in one of the three fields leaves that kind of
    access unrestricted.

    Attributes:
        limits: resource limits, clamped to the hard limits in force.
        readable: paths that may be opened for reading and listed.
        writable: paths below which files may be read, written, created, renamed and removed.
        executable: paths below which files may be executed; useless without `subprocess`.
        python_runtime: the interpreter may still read its standard library and installed packages.
        network: which sockets may be created.
        subprocess: may fork and exec.
        native_code: may map new executable memory, and so load extension modules.
        environment: names of the variables to keep; `None` keeps all.
        keep_descriptors: descriptors to keep open; `None` keeps all.
        ipc: may signal other processes and share memory, semaphores and message queues with them.
        capabilities: may keep its capabilities (Linux) except `CAP_SYS_RESOURCE`, which lifts limits; otherwise all are
            dropped irreversibly.
        run_as: user and group to become; `None` keeps the current ones.
        umask: file mode creation mask.
        working_directory: directory to change to first; `None` doesn't change it.
        new_session: leave the controlling terminal and unblock every signal.
        namespaces: any of `"user"`, `"mount"`, `"pid"`, `"net"` (Linux).
        cgroup: put the process into a new cgroup with the memory and process limits (cgroup v2).
        may_degrade: names of layers whose failure is reported, not raised.
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
            raise ValueError("run_as cannot be combined with a user namespace, which maps only the current user")
        if not 0 <= self.umask <= 0o777:
            raise ValueError(f"umask {self.umask:#o}: want 0 to 0o777")

    @property
    def writes_restricted(self) -> bool:
        """Whether opening files for writing is restricted."""
        return "/" not in self.writable

    @property
    def reads_restricted(self) -> bool:
        """Whether opening files for reading is restricted."""
        return "/" not in self.readable

    @property
    def closed(self) -> frozenset[str]:
        """Names of the axes that this confinement closes, fully or in part. A later one may close more."""
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
        """SHA-256 of every field, in hexadecimal: equal confinements have equal digests."""
        import hashlib  # loads OpenSSL, which building a confinement doesn't need

        parts = [f"{name}={_stable(getattr(self, name))}" for name in self.__slots__]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _stable(value: object) -> str:
    """A text that is the same in every process: sets are sorted."""
    return repr(sorted(value)) if isinstance(value, frozenset) else repr(value)


MAY_DEGRADE = frozenset(
    {
        "namespaces",
        "cgroup",
        # Existing threads keep their capabilities. A host that confines itself late gets a warning, not an error.
        "capabilities",
        # The guide requires rlimits on macOS, and seatbelt only where it's available.
        "seatbelt",
        # The guide requires the Job Object on Windows, which closes neither network nor files.
        "access",
    }
)
"""Layers that the ready-made policies request but don't require. A missing one is logged as a warning."""

EVERYWHERE = ("/",)


def confinement_for(policy: SandboxPolicy) -> Confinement:
    """MINIMAL refuses new processes and leaves the rest. STRICT also refuses sockets and changes to files."""
    minimal = policy is SandboxPolicy.MINIMAL
    return Confinement(
        readable=EVERYWHERE,
        writable=EVERYWHERE if minimal else (),
        executable=EVERYWHERE,
        network=Network.unrestricted() if minimal else Network.none(),
        ipc=minimal,
        environment=None,
        keep_descriptors=None,
        capabilities=minimal,
        may_degrade=MAY_DEGRADE,
        policy=policy,
    )
