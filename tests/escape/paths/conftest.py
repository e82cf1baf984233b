"""Every operation of the files capability, by openat2 and by the walk, with R granted and a secret beside it."""

import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nyx_stream.audit import AuditEvent
from nyx_stream.capabilities.files import Files
from nyx_stream.capabilities.files.local_service import LocalFileService
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import FilesystemDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

if sys.platform == "win32":
    # Links, FIFOs, procfs and both resolvers of POSIX; what Windows does is tested in tests/core/beneath.
    collect_ignore_glob = ["test_*.py"]
else:
    from nyx_core.beneath import root as root_module
    from nyx_core.beneath.openat2 import probe

SECRET = "secret"


@dataclass
class World:
    """`base/R` is granted and is $DATA; `base/S` and `base/out` are not. `events` holds the audit events."""

    base: Path
    guard: SandboxGuard
    lease: Lease
    files: Files
    events: list[AuditEvent] = field(default_factory=list)

    @property
    def inside(self) -> Path:
        return self.base / "R"

    def link(self, name: str, target: object) -> None:
        """Makes `R/name` a symbolic link."""
        os.symlink(str(target).format(base=self.base), self.inside / name)

    def audited(self) -> list[AuditEvent]:
        """Returns the events since the last call."""
        events = list(self.events)
        self.events.clear()
        return events

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Returns the state of every file, inside and outside: mode, inode, link target, content."""
        found: dict[str, tuple[object, ...]] = {}
        for where, folders, files in os.walk(self.base):
            for name in folders + files:
                path = os.path.join(where, name)
                status = os.lstat(path)
                content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
                target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
                found[path] = (status.st_mode, status.st_ino, target, content)
        return found

    async def expect_refused(self, operation: "Operation", path: object) -> FilesystemDenied:
        """Expects a denial that is audited once, and that nothing changed."""
        before = self.snapshot()
        self.events.clear()
        with pytest.raises(FilesystemDenied) as caught:
            await OPERATIONS[operation](self.files, path)
        (event,) = self.audited()
        assert (event.allowed, event.capability, event.plugin) == (False, "files", "p")
        assert self.snapshot() == before
        return caught.value

    async def expect_error(self, operation: "Operation", path: object, *errors: type[OSError]) -> OSError:
        """Expects an error of the system (not a denial), and that nothing changed."""
        before = self.snapshot()
        with pytest.raises(errors or OSError) as caught:
            await OPERATIONS[operation](self.files, path)
        assert errors or not isinstance(caught.value, FilesystemDenied)
        assert self.snapshot() == before
        return caught.value


Operation = str
Act = Callable[[Files, object], Awaitable[object]]


def opening(mode: str) -> Act:
    async def act(files: Files, path: object) -> object:
        async with files.open(path, mode) as file:  # type: ignore[arg-type]
            return await (file.write("new") if mode != "r" else file.read())

    return act


OPERATIONS: dict[Operation, Act] = {
    **{f"open {mode}": opening(mode) for mode in ("r", "r+", "w", "a", "x")},
    "read_bytes": lambda files, path: files.read_bytes(path),  # type: ignore[arg-type]
    "read_text": lambda files, path: files.read_text(path),  # type: ignore[arg-type]
    "write_bytes": lambda files, path: files.write_bytes(path, b"new"),  # type: ignore[arg-type]
    "write_text": lambda files, path: files.write_text(path, "new"),  # type: ignore[arg-type]
    "stat": lambda files, path: files.stat(path),  # type: ignore[arg-type]
    "exists": lambda files, path: files.exists(path),  # type: ignore[arg-type]
    "iterdir": lambda files, path: files.iterdir(path),  # type: ignore[arg-type,return-value]
    "mkdir": lambda files, path: files.mkdir(path),  # type: ignore[arg-type]
    "rename from": lambda files, path: files.rename(path, "moved"),  # type: ignore[arg-type]
    "rename to": lambda files, path: files.rename("movable", path),  # type: ignore[arg-type]
    "remove": lambda files, path: files.remove(path),  # type: ignore[arg-type]
    "remove tree": lambda files, path: files.remove(path, tree=True),  # type: ignore[arg-type]
}
ALL = sorted(OPERATIONS)
NAMING = [name for name in ALL if name.startswith(("mkdir", "rename", "remove"))]
"""The operations on a name in a directory, and so on a link itself."""
LOOKING = ["exists", "iterdir", "stat"]
FILES = [name for name in ALL if name not in NAMING and name not in LOOKING]
"""The operations that open a file."""
WRITING = [name for name in FILES if name not in ("open r", "read_bytes", "read_text")] + NAMING
FOLLOWING = [name for name in FILES if name != "open x"] + LOOKING
"""The operations that follow a link at the end of the path."""

MakeWorld = Callable[..., World]


@pytest.fixture(params=["openat2", "walk"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Resolves paths by the kernel, and by the walk, as on a kernel without openat2."""
    if request.param == "walk":
        monkeypatch.setattr(root_module, "probe", lambda: "not to be used in this test")
    elif (reason := probe()) is not None:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
async def make_world(tmp_path: Path, resolver: str) -> AsyncIterator[MakeWorld]:
    """Builds worlds; `change` alters the policy, which grants R."""
    leases: list[Lease] = []
    inside = tmp_path / "R"
    for folder in ("a", "b/c", "secret"):
        (inside / folder).mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for name in ("f", "b/t", "b/c/f", "movable", "secret/f"):
        (inside / name).write_text("inside")
    for name in ("S", "out/f"):
        (tmp_path / name).write_text(SECRET)

    def make(change: Callable[[SandboxPolicy], SandboxPolicy] = lambda policy: policy, mode: str = "rw") -> World:
        events: list[AuditEvent] = []
        places = {"$DATA": str(inside)}
        policy = change(SandboxPolicy.locked_down().allow_path_prefix("$DATA", mode=mode))
        guard = SandboxGuard(policy, plugin="p", places=places, audit=events.append)
        leases.append(Lease("p", "files"))
        return World(tmp_path, guard, leases[-1], Files(LocalFileService(guard, leases[-1], places=places)), events)

    yield make
    for lease in leases:
        lease.revoke("the test is over")


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """A world where R is granted with mode rw and nothing is denied."""
    return make_world()
