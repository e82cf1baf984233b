"""Attack: the name is swapped between the check and the use (case 15)."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nyx_core.beneath import Judge, make_directory, open_file, open_root, remove, rename, replace_file, status
from nyx_stream.errors import FilesystemDenied

from .conftest import World

OPENS = 20_000
LOST = {errno.ENOENT, errno.ELOOP, errno.EXDEV, errno.EAGAIN, errno.ENOTDIR}
"""The errors that a lost race may raise; O_DIRECTORY raises ENOTDIR for a link that was replaced."""


@contextmanager
def swapping(inside: Path) -> Iterator[None]:
    """A thread that makes `d` alternately a directory and a link to the outside, as fast as it can."""
    stop = threading.Event()
    os.mkdir(inside / "d")
    (inside / "d/f").write_text("inside")

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside / "d", inside / "kept")
            os.symlink("../out", inside / "d")
            os.unlink(inside / "d")
            os.rename(inside / "kept", inside / "d")

    thread = threading.Thread(target=swap)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.usefixtures("resolver")
@pytest.mark.parametrize("judge", [None, lambda below, absolute: None], ids=["plain", "judged"])
async def test_opens_against_a_swapped_directory(world: World, judge: Judge | None) -> None:
    """Of 20,000 opens, none opens the secret, and both outcomes, won and lost, occur."""
    root = open_root(str(world.inside))
    secret = (world.base / "out/f").stat().st_ino
    won = lost = 0
    with swapping(world.inside):
        for turn in range(OPENS):
            try:
                if turn % 4 == 3:
                    assert status(root, "d/f", judge).st_ino != secret
                else:
                    path = ("d/f", "d/../d/f", "a/../d/f")[turn % 4]
                    descriptor = open_file(root, path, os.O_RDONLY, judge=judge)
                    assert os.fstat(descriptor).st_ino != secret
                    os.close(descriptor)
                won += 1
            except OSError as error:
                if error.errno not in LOST:
                    raise
                lost += 1
    root.close()
    assert won
    assert lost


@pytest.mark.usefixtures("resolver")
async def test_changes_against_a_swapped_directory(world: World) -> None:
    """Creating, replacing, renaming and removing never reach the directory outside."""
    root = open_root(str(world.inside))
    before = {name: (world.base / "out" / name).read_text() for name in os.listdir(world.base / "out")}
    (world.inside / "source").write_text("moved")

    def create() -> None:
        os.close(open_file(root, "d/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    changes: list[Callable[[], object]] = [
        create,
        lambda: replace_file(root, "d/f", b"inside"),
        lambda: make_directory(root, "d/folder"),
        lambda: remove(root, "d/folder"),
        lambda: remove(root, "d/new"),
        lambda: rename((root, "source"), (root, "d/source")),
        lambda: rename((root, "d/source"), (root, "source")),
    ]
    with swapping(world.inside):
        for turn in range(7000):
            with suppress(OSError):
                changes[turn % len(changes)]()
    root.close()
    after = {name: (world.base / "out" / name).read_text() for name in os.listdir(world.base / "out")}
    assert after == before


async def test_the_capability_against_a_swapped_directory(world: World) -> None:
    """The capability returns the content from inside, or raises an error of the system or an audited denial."""
    with swapping(world.inside):
        for _ in range(1000):
            try:
                assert await world.files.read_text("d/f") == "inside"
            except FilesystemDenied:
                assert not world.events[-1].allowed
            except OSError as error:
                if error.errno not in LOST:
                    raise
    assert len(world.events) == 1000


async def test_the_root_is_replaced(world: World) -> None:
    """After R itself is replaced by a link, the capability still uses the directory that was granted."""
    os.rename(world.inside, world.base / "old")
    os.symlink("out", world.inside)
    assert await world.files.read_text("b/t") == "inside"
    with pytest.raises(FileNotFoundError):
        await world.files.read_text("../R/S".removeprefix("../R/"))
    await world.files.write_text("new", "x")
    assert os.listdir(world.base / "out") == ["f"]
    assert (world.base / "old/new").read_text() == "x"
