"""The files capability on a real directory, and a list of its audit events."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nyx_stream.audit import AuditEvent
from nyx_stream.capabilities.files import Files
from nyx_stream.capabilities.files.local_service import LocalFileService
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy


@dataclass
class World:
    """R is granted, S beside it is not. `events` holds the audit events."""

    base: Path
    guard: SandboxGuard
    lease: Lease
    files: Files
    events: list[AuditEvent] = field(default_factory=list)

    @property
    def inside(self) -> Path:
        return self.base / "R"

    def last(self) -> tuple[str, bool]:
        """Returns action and outcome of the only event since the last call."""
        (event,) = self.events
        self.events.clear()
        return event.action, event.allowed


MakeWorld = Callable[..., World]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Builds a world; `change` alters the policy, which grants R with mode rw and makes it $DATA."""
    made: list[World] = []
    inside = tmp_path / "R"
    (inside / "d/e").mkdir(parents=True)
    (inside / "f").write_text("inside")
    (tmp_path / "S").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f").write_text("secret")
    os.mkfifo(inside / "fifo")

    def make(
        change: Callable[[SandboxPolicy], SandboxPolicy] = lambda policy: policy, mode: str = "rw", **options: object
    ) -> World:
        places = {"$DATA": str(inside)}
        policy = change(SandboxPolicy.locked_down().allow_path_prefix("$DATA", mode=mode))
        events: list[AuditEvent] = []
        guard = SandboxGuard(policy, plugin="p", places=places, audit=events.append)
        lease = Lease("p", "files")
        files = Files(LocalFileService(guard, lease, places=places, **options))  # type: ignore[arg-type]
        world = World(tmp_path, guard, lease, files, events)
        made.append(world)
        return world

    yield make
    for world in made:
        world.lease.revoke("the test is over")


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """A world with the default policy."""
    return make_world()
