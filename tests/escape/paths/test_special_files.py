"""Attack: magic links of procfs, descriptors by name, and special files (cases 12, 13)."""

import os
import socket

import pytest

from .conftest import ALL, FILES, FOLLOWING, MakeWorld, World

MAGIC = ["/proc/self/root", "/proc/self/cwd", "/proc/self/exe", "/proc/self/fd/0", "/dev/fd/0", "/proc/1/root"]


@pytest.mark.parametrize("path", MAGIC)
async def test_by_its_name(world: World, path: str) -> None:
    """No rule grants a path of procfs or /dev/fd."""
    for operation in ALL:
        await world.expect_refused(operation, path)


@pytest.mark.parametrize("path", MAGIC)
async def test_by_a_link(world: World, path: str) -> None:
    """A link in R to one of them leads out."""
    world.link("l", path)
    for operation in FOLLOWING:
        await world.expect_refused(operation, "l")
        await world.expect_refused(operation, "l/etc")


async def test_in_a_granted_procfs(make_world: MakeWorld) -> None:
    """If procfs itself is granted, its magic links still lead out."""
    world = make_world(lambda policy: policy.allow_path_prefix("/proc"))
    for operation in FOLLOWING:
        for path in ("root/etc", "cwd", "exe", "fd/0"):
            await world.expect_refused(operation, f"/proc/self/{path}")
        assert await world.files.exists("/proc/self/stat")


@pytest.mark.parametrize("operation", FILES)
async def test_a_special_file_is_refused(world: World, operation: str) -> None:
    """A FIFO, a socket and a device are refused at once by every operation that would open them as a file."""
    os.mkfifo(world.inside / "fifo")
    names = ["fifo", "sock"]
    if os.geteuid() == 0:
        os.mknod(world.inside / "device", 0o020666, os.makedev(1, 3))
        names.append("device")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        os.chdir(world.inside)
        listener.bind("sock")
        os.fchdir(here)
        os.close(here)
        world.link("l", "fifo")
        for name in [*names, "l"]:
            if operation == "open x":
                await world.expect_error(operation, name, FileExistsError)
            else:
                await world.expect_refused(operation, name)


@pytest.mark.parametrize("operation", FILES)
async def test_a_directory_can_not_be_opened(world: World, operation: str) -> None:
    """An operation that opens a file raises IsADirectoryError for a directory."""
    await world.expect_error(operation, "b", IsADirectoryError, FileExistsError)


async def test_a_fifo_has_a_status(world: World) -> None:
    """The allowed twin: `stat` does not open a FIFO, and it can be renamed and removed."""
    os.mkfifo(world.inside / "fifo")
    assert (await world.files.stat("fifo")).st_mode & 0o170000 == 0o010000
    await world.files.rename("fifo", "other")
    await world.files.remove("other")


async def test_a_fifo_does_not_block(make_world: MakeWorld) -> None:
    """With a deny rule, when a file is opened in steps, a FIFO is refused at once too."""
    world = make_world(lambda policy: policy.deny_path_prefix("$DATA/secret"))
    os.mkfifo(world.inside / "fifo")
    for operation in FILES:
        if operation != "open x":
            await world.expect_refused(operation, "fifo")
