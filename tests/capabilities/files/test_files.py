"""The operations of the files capability, their errors, their limits, and their end."""

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Semaphore

import aiofiles
import pytest

from nyx_core import beneath
from nyx_stream.capabilities.files import Files
from nyx_stream.capabilities.files.local_service import MAX_CONCURRENT, LocalFileService
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import FilesystemDenied, LimitExceeded, Revoked
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.manifest import Manifest

from .conftest import MakeWorld, World


async def test_open_gives_what_aiofiles_gives(world: World) -> None:
    """Every kind of mode yields the same class as aiofiles.open, with the name that was given."""
    kinds = (("r", -1), ("rb", -1), ("rb", 0), ("w", -1), ("wb", -1), ("r+b", -1), ("a+", -1))
    for mode, buffering in kinds:
        async with world.files.open("f", mode, buffering) as ours:
            pass
        async with aiofiles.open(world.inside / "f", mode, buffering) as theirs:  # type: ignore[call-overload]
            pass
        assert type(ours) is type(theirs)
        assert ours.name == "f"


async def test_open_can_be_awaited(world: World) -> None:
    """`await open(…)` gives the file, which the caller closes."""
    file = await world.files.open("new", "w", encoding="utf-8", newline="\n")
    await file.write("ä\n")
    await file.close()
    assert (world.inside / "new").read_bytes() == b"\xc3\xa4\n"
    assert world.last() == ("write", True)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("q", {}), ("rw", {}), ("wb", {"encoding": "utf-8"}), ("w", {"encoding": "no-such"}),
        ("w", {"closefd": False}), ("wU", {}),
    ],
)  # fmt: skip
async def test_wrong_arguments_touch_nothing(world: World, mode: str, options: dict[str, object]) -> None:
    """A wrong mode and arguments that do not fit it are refused before the file is truncated."""
    with pytest.raises((ValueError, LookupError)):
        async with world.files.open("f", mode, **options):  # type: ignore[arg-type]
            pass
    assert (world.inside / "f").read_text() == "inside"


async def test_numbers_and_bytes_are_refused_as_paths(world: World) -> None:
    """A descriptor number is not a path, and neither is a bytes object."""
    for path in (0, b"f", None):
        with pytest.raises(TypeError):
            await world.files.read_bytes(path)  # type: ignore[arg-type]


async def test_whole_files(world: World) -> None:
    """Small reads and writes are whole; a write leaves no temporary file and keeps the permission bits."""
    os.chmod(world.inside / "f", 0o640)
    assert await world.files.write_bytes("f", bytearray(b"\x00\xff")) == 2
    assert world.last() == ("write", True)
    assert await world.files.read_bytes("f") == b"\x00\xff"
    assert await world.files.write_text("d/t", "ä") == 1
    assert await world.files.read_text(world.inside / "d" / "t") == "ä"
    assert (world.inside / "f").stat().st_mode & 0o777 == 0o640
    assert not [name for name in os.listdir(world.inside) if name.startswith(".nyx")]


async def test_reading_is_bounded(make_world: MakeWorld) -> None:
    """A file of exactly the limit is read, and one byte more is refused."""
    world = make_world(lambda policy: policy.with_limits(read_bytes=5000))
    (world.inside / "most").write_bytes(b"x" * 5000)
    (world.inside / "more").write_bytes(b"x" * 5001)
    assert len(await world.files.read_bytes("most")) == 5000
    with pytest.raises(LimitExceeded, match="read_bytes"):
        await world.files.read_bytes("more")
    (world.inside / "empty").write_bytes(b"")
    assert await world.files.read_bytes("empty") == b""


async def test_names(world: World) -> None:
    """Directories are made, listed, renamed and removed; the entries of a listing are paths that can be used."""
    files = world.files
    await files.mkdir("n/")
    with pytest.raises(FileExistsError):
        await files.mkdir("n")
    await files.mkdir("n/x")
    await files.mkdir("n/a/b/c", parents=True)
    await files.mkdir("n/a/b/c", exist_ok=True)
    assert sorted(await files.iterdir("n")) == ["n/a", "n/x"]
    assert sorted([entry async for entry in files.iterdir()]) == ["d", "f", "fifo", "n"]
    await files.rename("n/a", "moved")
    assert await files.exists("moved/b/c")
    with pytest.raises(OSError, match="not empty"):
        await files.remove("moved")
    await files.remove("moved", tree=True)
    await files.remove("f")
    assert not await files.exists("moved")
    assert not await files.exists("d/f/x")
    assert (await files.stat("d")).st_ino == (world.inside / "d").stat().st_ino
    assert all(event.allowed for event in world.events)


async def test_a_denial_has_a_reason_and_is_audited(world: World) -> None:
    """A path outside raises FilesystemDenied with the guard's reason, and is audited once."""
    with pytest.raises(FilesystemDenied, match="no rule allows it") as caught:
        await world.files.read_bytes(world.base / "S")
    assert caught.value.action == "read"
    assert caught.value.plugin == "p"
    assert world.last() == ("read", False)


async def test_an_error_of_the_system_is_raised_unchanged(world: World) -> None:
    """For a granted path, and the operation is audited as allowed."""
    with pytest.raises(FileNotFoundError):
        await world.files.read_bytes("missing")
    assert world.last() == ("read", True)
    with pytest.raises(IsADirectoryError):
        await world.files.read_bytes("d")


async def test_read_only(make_world: MakeWorld) -> None:
    """Mode r allows reading and refuses every operation that writes, each audited."""
    world = make_world(mode="r")
    files = world.files
    assert await files.read_bytes("f") == b"inside"
    assert await files.iterdir("d") == ["d/e"]
    world.events.clear()
    attempts = [lambda mode=mode: files.open("f", mode) for mode in ("w", "a", "r+", "wb", "w+", "a+b", "rb+")]
    attempts += [
        lambda: files.open("g", "x"), lambda: files.write_bytes("f", b""), lambda: files.write_text("g", ""),
        lambda: files.mkdir("g"), lambda: files.rename("f", "g"), lambda: files.remove("f"),
        lambda: files.remove("d", tree=True),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(FilesystemDenied, match="to write"):
            await attempt()
        assert world.last()[1] is False
    assert sorted(os.listdir(world.inside)) == ["d", "f", "fifo"]
    assert (world.inside / "f").read_text() == "inside"


async def test_after_revocation(world: World) -> None:
    """Every operation and every file that was open raises `Revoked`; leaving `async with` does not raise."""
    files = world.files
    async with files.open("f") as reading, files.open("g", "w") as writing:
        assert await reading.read(1) == "i"
        await writing.write("kept")
        world.lease.revoke("incident 42")
        for use in (reading.read, reading.readline, lambda: writing.write("more"), writing.flush, reading.tell):
            with pytest.raises(Revoked, match="incident 42"):
                await use()
        with pytest.raises(Revoked):
            _ = [line async for line in reading]
    for operation in (
        lambda: files.read_bytes("f"), lambda: files.write_text("f", ""), lambda: files.stat("f"),
        lambda: files.exists("f"), lambda: files.iterdir("."), lambda: files.mkdir("m"),
        lambda: files.rename("f", "h"), lambda: files.remove("f"), lambda: files.open("f"),
    ):  # fmt: skip
        with pytest.raises(Revoked, match="incident 42"):
            await operation()
    assert (world.inside / "f").read_text() == "inside"


async def test_after_close(world: World) -> None:
    """`close` has the same effect and closes the descriptor of the granted directory."""
    before = len(os.listdir("/dev/fd"))
    file = await world.files.open("f", "rb")
    world.files.close()
    with pytest.raises(Revoked, match="closed"):
        await file.read()
    with pytest.raises(Revoked, match="closed"):
        await world.files.read_bytes("f")
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(os.listdir("/dev/fd")) < before


async def test_open_files_are_bounded(make_world: MakeWorld) -> None:
    """A file beyond `open_files` of the grant is refused until another is closed."""
    world = make_world(lambda policy: policy.with_limits(open_files=2))
    first = await world.files.open("f")
    async with world.files.open("f"):
        with pytest.raises(LimitExceeded, match="open_files"):
            await world.files.open("f")
    async with world.files.open("f"):
        pass
    await first.close()


async def test_a_cancelled_open_loses_no_descriptor(world: World) -> None:
    """A task that is cancelled while a thread opens the file for it leaves nothing open."""
    await world.files.read_bytes("f")
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        task = asyncio.ensure_future(_opened(world))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.get_running_loop().run_in_executor(None, _nothing)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(os.listdir("/dev/fd")) <= before


async def _opened(world: World) -> object:
    return await world.files.open("f", "rb")


def _nothing() -> None:
    """Queued after the operations that ran before."""


async def test_plugin_code_is_never_written(make_world: MakeWorld, tmp_path: Path) -> None:
    """An import path inside a writable prefix can be read, and never written, by its name or through a link."""
    code = tmp_path / "R/d/e"
    world = make_world(protected=ImportPaths([str(code)]))
    os.symlink("d/e", world.inside / "l")
    (code / "m.py").write_text("pass")
    assert await world.files.read_text("l/m.py") == "pass"
    await world.files.write_text("d/beside", "")
    world.events.clear()
    for operation in (
        lambda: world.files.write_text("d/e/m.py", "evil"), lambda: world.files.write_text("l/m.py", "evil"),
        lambda: world.files.open("l/m.py", "a"), lambda: world.files.open("l/new.py", "x"),
        lambda: world.files.rename("d", "gone"), lambda: world.files.rename("f", "l/n.py"),
        lambda: world.files.remove("d", tree=True), lambda: world.files.mkdir("d/e/pkg"),
    ):  # fmt: skip
        with pytest.raises(FilesystemDenied, match="imported"):
            await operation()
        assert world.last()[1] is False
    assert os.listdir(code) == ["m.py"]
    assert (code / "m.py").read_text() == "pass"


async def test_a_single_file_is_granted(make_world: MakeWorld) -> None:
    """A prefix that names a file grants only that file."""
    base = make_world().base
    world = make_world(lambda policy: policy.allow_path_prefix(base / "S", mode="rw"))
    assert await world.files.read_text(base / "S") == "secret"
    await world.files.write_text(base / "S", "new")
    assert (base / "S").read_text() == "new"
    with pytest.raises(FilesystemDenied):
        await world.files.read_text(base / "out/f")


async def test_the_manifest_bounds_what_a_link_reaches(make_world: MakeWorld, tmp_path: Path) -> None:
    """A path that the policy grants and the manifest does not ask for is not reached through a link either."""
    world = make_world()
    (tmp_path / "R/other").write_text("not asked for")
    os.symlink("../other", tmp_path / "R/d/l")
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "plugin.toml").write_text(
        f'id = "q"\nversion = "1.0.0"\nentry = "q:Q"\n[permissions]\nread = ["{tmp_path}/R/d"]\n'
    )
    manifest = Manifest.from_toml(folder / "plugin.toml")
    guard = SandboxGuard(world.guard.policy, manifest=manifest, places={"$DATA": str(tmp_path / "R")})
    lease = Lease("q", "files")
    files = Files(LocalFileService(guard, lease, places={"$DATA": str(tmp_path / "R")}))
    assert await files.iterdir("d")
    with pytest.raises(FilesystemDenied, match="manifest"):
        await files.read_text("d/l")
    lease.revoke("done")


class Blocked:
    """Makes the thread of every `stat` wait until `go` is set; `running` counts those that wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.go = Semaphore(0), Event()
        monkeypatch.setattr(beneath, "status", self._status)

    def _status(self, *_: object) -> None:
        self.running.release()
        assert self.go.wait(30)
        raise OSError("from a thread")

    async def fill(self, world: World) -> list[asyncio.Task[os.stat_result]]:
        """Starts as many operations as run at the same time, and waits until they do."""
        tasks = [asyncio.create_task(world.files.stat("f")) for _ in range(MAX_CONCURRENT)]
        for _ in tasks:
            assert await asyncio.to_thread(self.running.acquire, timeout=30)
        return tasks


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Blocked:
    """Operations that run until the test lets them end."""
    return Blocked(monkeypatch)


async def test_a_plugin_has_a_few_operations_at_once(world: World, blocked: Blocked) -> None:
    """The others wait, and are checked when their turn comes, so that a revocation in between applies to them."""
    running = await blocked.fill(world)
    waiting = [asyncio.create_task(world.files.stat("f")) for _ in range(3)]
    changing = asyncio.create_task(world.files.write_text("late", "x"))
    await asyncio.sleep(0)
    assert not blocked.running.acquire(blocking=False)
    world.lease.revoke("incident 42")
    blocked.go.set()
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert [str(end) for end in ends] == ["from a thread"] * MAX_CONCURRENT
    for task in (*waiting, changing):
        with pytest.raises(Revoked, match="incident 42"):
            await task
    assert not blocked.running.acquire(blocking=False)
    assert not (world.inside / "late").exists()


async def test_a_result_that_comes_after_the_end_is_withheld(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the lease ended isn't returned after it."""
    reading, go = Event(), Event()
    list_directory = beneath.list_directory

    def slow(root: beneath.Root, path: str, judge: beneath.Judge | None = None) -> list[str]:
        names = list_directory(root, path, judge)
        reading.set()
        assert go.wait(30)
        return names

    monkeypatch.setattr(beneath, "list_directory", slow)
    task = asyncio.create_task(_listed(world))
    assert await asyncio.to_thread(reading.wait, 30)
    world.lease.revoke("incident 42")
    go.set()
    with pytest.raises(Revoked, match="incident 42"):
        await task


async def _listed(world: World) -> list[str]:
    return await world.files.iterdir(".")


async def test_a_cancelled_operation_keeps_its_slot_until_its_thread_is_free(world: World, blocked: Blocked) -> None:
    """A plugin that starts and cancels operations occupies no more threads than one that waits for them."""
    tasks = await blocked.fill(world)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * MAX_CONCURRENT
    late = asyncio.create_task(world.files.stat("f"))
    assert not await asyncio.to_thread(blocked.running.acquire, timeout=0.1)
    blocked.go.set()
    with pytest.raises(OSError, match="from a thread"):
        await late
    assert blocked.running.acquire(blocking=False)


async def test_an_operation_that_is_cancelled_while_it_waits_takes_no_slot(world: World, blocked: Blocked) -> None:
    """It doesn't run, and those that wait behind it do."""
    tasks = await blocked.fill(world)
    waiting = [asyncio.create_task(world.files.stat("f")) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[:5]:
        task.cancel()
    blocked.go.set()
    ends = await asyncio.gather(*tasks, *waiting, return_exceptions=True)
    assert [type(end) for end in ends[MAX_CONCURRENT:]] == [asyncio.CancelledError] * 5 + [OSError] * 5
    assert [blocked.running.acquire(blocking=False) for _ in range(6)] == [True] * 5 + [False]


async def test_a_limit_applies_when_the_operation_runs(world: World, blocked: Blocked) -> None:
    """It was lowered while the operation waited for a slot."""
    (world.inside / "large").write_bytes(bytes(1000))
    tasks = await blocked.fill(world)
    reading = asyncio.create_task(world.files.read_bytes("large"))
    await asyncio.sleep(0)
    world.guard.update(world.guard.policy.with_limits(read_bytes=100))
    blocked.go.set()
    with pytest.raises(LimitExceeded, match="read_bytes"):
        await reading
    await asyncio.gather(*tasks, return_exceptions=True)


def test_files_can_be_used_in_several_event_loops(tmp_path: Path) -> None:
    """Made outside of a loop, and used in two, one after the other, by more operations than run at once."""
    (tmp_path / "f").write_text("inside")
    policy = SandboxPolicy.locked_down().allow_path_prefix(str(tmp_path))
    lease = Lease("p", "files")
    files = Files(LocalFileService(SandboxGuard(policy, plugin="p", audit=lambda _: None), lease))

    async def read() -> list[bytes]:
        return await asyncio.gather(*[files.read_bytes(tmp_path / "f") for _ in range(5 * MAX_CONCURRENT)])

    for _ in range(2):
        assert asyncio.run(read()) == [b"inside"] * (5 * MAX_CONCURRENT)
    lease.revoke("the test is over")


async def test_an_error_leaves_no_reference_cycle(world: World) -> None:
    """A future that holds an error holds the frames that awaited it; many of these made a collection take 30 ms."""
    with suppress(FileNotFoundError):
        await world.files.stat("nothing")
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            with suppress(FileNotFoundError):
                await world.files.stat("nothing")
        await asyncio.sleep(0)
        left = [kept for kept in gc.get_objects() if isinstance(kept, FileNotFoundError)]
    finally:
        gc.enable()
    assert len(left) <= 1  # a thread of the pool may still refer to one
