"""Opening below R: paths inside open, paths that lead out are escapes, only regular files open."""

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
    """Dots and repeated slashes that stay inside reach the file."""
    assert read(root, path) == "inside"


@pytest.mark.parametrize("path", ["..", "../R/f", "a/../../R/f", "../S", "/f", "/", "b/../..", "./.."])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_escapes_by_text(root: Root, tree: Path, path: str, flags: int) -> None:
    """A step above the root is an escape with any flags, even if the path returns."""
    with pytest.raises(EscapesRoot):
        open_file(root, path, flags)
    with pytest.raises(EscapesRoot):
        status(root, path)
    assert (tree / "S").read_text() == "secret"


def test_links_resolve_physically(root: Root, tree: Path) -> None:
    """`a -> b/c` makes `a/../t` the file b/t. A link that leads exactly to the root is inside."""
    os.rmdir(tree / "R/a")
    os.symlink("b/c", tree / "R/a")
    os.symlink("b/c/../..", tree / "R/up")
    os.symlink("b/c/../../..", tree / "R/over")
    assert read(root, "a/../t") == "b/t"
    assert read(root, "up/f") == "inside"
    with pytest.raises(EscapesRoot):
        read(root, "over/S")


@pytest.mark.parametrize("tail", ["", "/", "/.", "/f", "/missing/f"])
@pytest.mark.parametrize("target", ["../out", "{tree}/out", "{tree}/R/b", "../R/b", "b/../../out", "../missing"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL])
def test_links_that_lead_out(root: Root, tree: Path, target: str, tail: str, flags: int) -> None:
    """A link to the outside is an escape with any tail. Absolute links always are. Nothing is created."""
    os.symlink(target.format(tree=tree), tree / "R/link")
    before = sorted(os.listdir(tree))
    expected = FileExistsError if flags & os.O_EXCL and not tail else EscapesRoot
    with pytest.raises(expected):
        open_file(root, "link" + tail, flags)
    assert sorted(os.listdir(tree)) == before


def test_links_that_loop(root: Root, tree: Path) -> None:
    """A link to itself and a ring of three links fail with ELOOP, as do 41 links in a row; 40 work."""
    os.symlink("self", tree / "R/self")
    for name, target in (("x", "y"), ("y", "z"), ("z", "x")):
        os.symlink(target, tree / "R" / name)
    os.symlink("f", tree / "R/l1")
    for number in range(2, 42):
        os.symlink(f"l{number - 1}", tree / f"R/l{number}")
    for name in ("self", "x", "self/f", "l41"):
        with pytest.raises(OSError, match="symbolic links") as caught:
            read(root, name)
        assert caught.value.errno == errno.ELOOP
    assert read(root, "l40") == "inside"


@pytest.mark.parametrize("path", ["f/", "f/.", "f/..", "fifo/", "fifo/..", "f/x"])
def test_a_file_is_not_a_directory(root: Root, path: str) -> None:
    """A path that continues after a file fails with ENOTDIR."""
    with pytest.raises(NotADirectoryError):
        open_file(root, path, os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        status(root, path)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
@pytest.mark.parametrize("judge", [None, lambda below, absolute: None])
def test_only_regular_files(root: Root, tree: Path, flags: int, judge: Callable[[str, str], None] | None) -> None:
    """A FIFO, a socket and a directory are refused at once, without waiting for the FIFO's other end."""
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree / "R")
        listener.bind("sock")
        os.chdir(here)
        for name in ("fifo", "sock"):
            with pytest.raises(NotPlain):
                open_file(root, name, flags, judge=judge)
    for name in ("b", "."):
        with pytest.raises(IsADirectoryError):
            open_file(root, name, flags, judge=judge)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device node needs root")
def test_a_device_is_refused(root: Root, tree: Path) -> None:
    """A device node is refused, but its status can be read."""
    os.mknod(tree / "R/null", 0o020666, os.makedev(1, 3))
    with pytest.raises((NotPlain, PermissionError)):
        open_file(root, "null", os.O_RDWR)
    assert status(root, "null").st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize("path", ["n" * 300, "b/" + "n" * 300, "b/../" * 900 + "f", "\udcff", "b/\udcff"])
def test_names_that_cannot_exist_give_the_kernels_error(root: Root, path: str) -> None:
    """Names that are too long or not UTF-8 give the kernel's OSError."""
    with pytest.raises(OSError, match="Errno") as caught:
        open_file(root, path, os.O_RDONLY)
    assert caught.value.errno == (errno.ENOENT if "\udcff" in path else errno.ENAMETOOLONG)


@pytest.mark.parametrize("path", ["", "f\0g", "b/f\0g"])
def test_empty_path_and_nul(root: Root, path: str) -> None:
    """The empty path opens nothing, and a NUL doesn't truncate a name."""
    with pytest.raises((FileNotFoundError, ValueError)):
        open_file(root, path, os.O_RDONLY)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs procfs")
@pytest.mark.parametrize("path", ["self/root/etc", "self/cwd", "self/exe", "self/fd/{fd}", "thread-self/root"])
def test_magic_links(opener: Callable[[int], Opener], tree: Path, path: str) -> None:
    """A magic link of procfs is an escape with any target; a plain link of procfs isn't."""
    held = open_root("/proc", opener)
    with open(tree / "S") as secret:
        try:
            with pytest.raises(EscapesRoot):
                open_file(held, path.format(fd=secret.fileno()), os.O_RDONLY)
            assert read(held, "self/stat").startswith(f"{os.getpid()} ")
        finally:
            held.close()


def test_the_grant_is_the_directory(root: Root, tree: Path) -> None:
    """If R is replaced by a link after the grant, the root is still the old directory."""
    os.rename(tree / "R", tree / "old")
    os.symlink("out", tree / "R")
    assert read(root, "f") == "inside"


def test_create(root: Root, tree: Path) -> None:
    """A file is created with the requested mode, also through a link to a missing name inside."""
    os.symlink("a/new", tree / "R/dangling")
    os.close(open_file(root, "dangling", os.O_WRONLY | os.O_CREAT, 0o600))
    assert (tree / "R/a/new").stat().st_mode & 0o777 == 0o600
    os.close(open_file(root, "b/made", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    with pytest.raises(FileExistsError):
        open_file(root, "dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_no_descriptor_is_inherited(root: Root) -> None:
    """Every descriptor is closed on exec."""
    descriptor = open_file(root, "b/c/f", os.O_RDONLY)
    assert not os.get_inheritable(descriptor)
    assert not os.get_inheritable(root.descriptor)
    os.close(descriptor)


def test_listing(root: Root) -> None:
    """A directory is listed by names; a file can't be listed."""
    assert sorted(list_directory(root, ".")) == ["a", "b", "f", "fifo"]
    assert sorted(list_directory(root, "b/")) == ["c", "d", "t"]
    with pytest.raises(NotADirectoryError):
        list_directory(root, "f")
    with pytest.raises(EscapesRoot):
        list_directory(root, "../out")


def test_a_single_file_as_root(tree: Path, opener: Callable[[int], Opener]) -> None:
    """A granted file is reached by the empty path, and has nothing below or beside it."""
    held = open_root(str(tree / "R/f"), opener)
    assert read(held, "") == "inside"
    assert status(held, "").st_size == 6
    for path in ("x", "../f", "b/t"):
        with pytest.raises(NotADirectoryError):
            open_file(held, path, os.O_RDONLY)
    held.close()


def test_nothing_stays_open(root: Root, tree: Path) -> None:
    """Neither success nor failure leaves a descriptor open."""
    os.symlink("b/c", tree / "R/l")
    os.symlink("../out", tree / "R/o")

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
