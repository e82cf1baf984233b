"""Opening below R: what is inside opens, what leads out is an escape, what is no plain file is refused."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nyx_core.beneath.errors import EscapesRoot, NotPlain
from nyx_core.beneath.opening import list_directory, open_file, status
from nyx_core.beneath.root import Root, open_root
from nyx_core.beneath.walk import Opener


def read(root: Root, path: str) -> str:
    descriptor = open_file(root, path, os.O_RDONLY)
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("path", ["f", "./f", "b/..//f", "./b//c/./../../f", "a/../f", "b/c/../../f"])
def test_inside(root: Root, path: str) -> None:
    """Dots and doubled slashes that stay inside reach the file."""
    assert read(root, path) == "inside"


@pytest.mark.parametrize("path", ["..", "../R/f", "a/../../R/f", "../S", "/f", "/", "b/../..", "./.."])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_escapes_by_text(root: Root, place: Path, path: str, flags: int) -> None:
    """A step above the root is an escape, also one that comes back, for every way to open."""
    with pytest.raises(EscapesRoot):
        open_file(root, path, flags)
    with pytest.raises(EscapesRoot):
        status(root, path)
    assert (place / "S").read_text() == "secret"


def test_links_resolve_physically(root: Root, place: Path) -> None:
    """`a -> b/c` makes `a/../t` the file b/t; a link that lands exactly on the root is inside."""
    os.rmdir(place / "R/a")
    os.symlink("b/c", place / "R/a")
    os.symlink("b/c/../..", place / "R/up")
    os.symlink("b/c/../../..", place / "R/over")
    assert read(root, "a/../t") == "b/t"
    assert read(root, "up/f") == "inside"
    with pytest.raises(EscapesRoot):
        read(root, "over/S")


@pytest.mark.parametrize("tail", ["", "/", "/.", "/f", "/missing/f"])
@pytest.mark.parametrize("target", ["../out", "{place}/out", "{place}/R/b", "../R/b", "b/../../out", "../missing"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL])
def test_links_that_lead_out(root: Root, place: Path, target: str, tail: str, flags: int) -> None:
    """A link to the outside is an escape with any tail, absolute ones always, and nothing is created."""
    os.symlink(target.format(place=place), place / "R/link")
    before = sorted(os.listdir(place))
    expected = FileExistsError if flags & os.O_EXCL and not tail else EscapesRoot
    with pytest.raises(expected):
        open_file(root, "link" + tail, flags)
    assert sorted(os.listdir(place)) == before


def test_links_that_loop(root: Root, place: Path) -> None:
    """A link to itself and a ring of three are ELOOP; forty links in a row are not, forty-one are."""
    os.symlink("self", place / "R/self")
    for name, target in (("x", "y"), ("y", "z"), ("z", "x")):
        os.symlink(target, place / "R" / name)
    os.symlink("f", place / "R/l1")
    for number in range(2, 42):
        os.symlink(f"l{number - 1}", place / f"R/l{number}")
    for name in ("self", "x", "self/f", "l41"):
        with pytest.raises(OSError, match="symbolic links") as caught:
            read(root, name)
        assert caught.value.errno == errno.ELOOP
    assert read(root, "l40") == "inside"


@pytest.mark.parametrize("path", ["f/", "f/.", "f/..", "fifo/", "fifo/..", "f/x"])
def test_a_file_is_no_directory(root: Root, path: str) -> None:
    """What goes on after a file is ENOTDIR."""
    with pytest.raises(NotADirectoryError):
        open_file(root, path, os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        status(root, path)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
@pytest.mark.parametrize("judge", [None, lambda below, absolute: None])
def test_only_regular_files(root: Root, place: Path, flags: int, judge: Callable[[str, str], None] | None) -> None:
    """FIFO, socket and directory are refused at once; nobody waits for the FIFO's other end."""
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(place / "R")
        listener.bind("sock")
        os.chdir(here)
        for name in ("fifo", "sock"):
            with pytest.raises(NotPlain):
                open_file(root, name, flags, judge=judge)
    for name in ("b", "."):
        with pytest.raises(IsADirectoryError):
            open_file(root, name, flags, judge=judge)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device node needs root")
def test_a_device_is_refused(root: Root, place: Path) -> None:
    """A device node inside is refused, and its status can still be read."""
    os.mknod(place / "R/null", 0o020666, os.makedev(1, 3))
    with pytest.raises((NotPlain, PermissionError)):
        open_file(root, "null", os.O_RDWR)
    assert status(root, "null").st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize("path", ["n" * 300, "b/" + "n" * 300, "b/../" * 900 + "f", "\udcff", "b/\udcff"])
def test_odd_names_are_clean_errors(root: Root, path: str) -> None:
    """Names that are too long or no UTF-8 give an OSError of the kernel's own."""
    with pytest.raises(OSError, match="Errno") as caught:
        open_file(root, path, os.O_RDONLY)
    assert caught.value.errno == (errno.ENOENT if "\udcff" in path else errno.ENAMETOOLONG)


@pytest.mark.parametrize("path", ["", "f\0g", "b/f\0g"])
def test_no_name_and_nul(root: Root, path: str) -> None:
    """The empty path opens nothing, and a NUL never cuts a name short."""
    with pytest.raises((FileNotFoundError, ValueError)):
        open_file(root, path, os.O_RDONLY)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs procfs")
@pytest.mark.parametrize("path", ["self/root/etc", "self/cwd", "self/exe", "self/fd/{fd}", "thread-self/root"])
def test_magic_links(way: Callable[[int], Opener], place: Path, path: str) -> None:
    """A magic link of procfs leads out, whatever its text says; a plain link there does not."""
    held = open_root("/proc", way)
    with open(place / "S") as secret:
        try:
            with pytest.raises(EscapesRoot):
                open_file(held, path.format(fd=secret.fileno()), os.O_RDONLY)
            assert read(held, "self/stat").startswith(f"{os.getpid()} ")
        finally:
            held.close()


def test_the_grant_is_the_directory(root: Root, place: Path) -> None:
    """R replaced by a link after the grant: the root still is the old directory."""
    os.rename(place / "R", place / "old")
    os.symlink("out", place / "R")
    assert read(root, "f") == "inside"


def test_create(root: Root, place: Path) -> None:
    """A file is created with the mode asked for, through a link to a missing name inside as well."""
    os.symlink("a/new", place / "R/dangling")
    os.close(open_file(root, "dangling", os.O_WRONLY | os.O_CREAT, 0o600))
    assert (place / "R/a/new").stat().st_mode & 0o777 == 0o600
    os.close(open_file(root, "b/made", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    with pytest.raises(FileExistsError):
        open_file(root, "dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_no_descriptor_is_inherited(root: Root) -> None:
    """Every descriptor closes on exec."""
    descriptor = open_file(root, "b/c/f", os.O_RDONLY)
    assert not os.get_inheritable(descriptor)
    assert not os.get_inheritable(root.descriptor)
    os.close(descriptor)


def test_listing(root: Root) -> None:
    """A directory is listed by names, a file is not listed."""
    assert sorted(list_directory(root, ".")) == ["a", "b", "f", "fifo"]
    assert sorted(list_directory(root, "b/")) == ["c", "d", "t"]
    with pytest.raises(NotADirectoryError):
        list_directory(root, "f")
    with pytest.raises(EscapesRoot):
        list_directory(root, "../out")


def test_a_single_file_as_root(place: Path, way: Callable[[int], Opener]) -> None:
    """A granted file is reached by the empty remainder and has nothing below it or beside it."""
    held = open_root(str(place / "R/f"), way)
    assert read(held, "") == "inside"
    assert status(held, "").st_size == 6
    for path in ("x", "../f", "b/t"):
        with pytest.raises(NotADirectoryError):
            open_file(held, path, os.O_RDONLY)
    held.close()


def test_nothing_stays_open(root: Root, place: Path) -> None:
    """Success and failure alike leave no descriptor behind."""
    os.symlink("b/c", place / "R/l")
    os.symlink("../out", place / "R/o")

    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before = descriptors()
    for path in ("l/../t", "l/f", "o/f", "f/x", "missing", "b", "fifo", "l/../../..", "b/c/"):
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
            with contextlib.suppress(OSError):
                os.close(open_file(root, path, flags, judge=lambda below, absolute: None))
            with contextlib.suppress(OSError):
                status(root, path)
    assert descriptors() == before
