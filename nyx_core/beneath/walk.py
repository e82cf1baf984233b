"""Resolves a path below a directory without openat2: component by component with O_NOFOLLOW.

It's used on macOS and where openat2 is missing or filtered. Tests compare openat2 with it, so it follows the kernel's
path walk (fs/namei.c) even where that is surprising.

No step looks a name up twice: each directory is held open, `..` returns to the descriptor that the walk came from, and
a link is read from the directory that is held.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import NamedTuple, Self

from nyx_core.beneath.errors import EscapesRoot

Opener = Callable[[bytes, int, int], int]
"""`(path, flags of open(2), mode) -> descriptor`, below the root that it was made for."""

MAX_LINKS = 40
"""Links followed in one resolution before ELOOP: MAXSYMLINKS of include/linux/namei.h."""

PATH_MAX = 4096
"""Bytes of a path with its NUL, include/uapi/linux/limits.h. A longer one is ENAMETOOLONG before any lookup."""

# Walking through a directory needs search permission only. macOS has O_SEARCH for that instead of O_PATH.
O_WALK: int = getattr(os, "O_PATH", getattr(os, "O_SEARCH", os.O_RDONLY)) | os.O_CLOEXEC
O_PATH: int = getattr(os, "O_PATH", 0)


class LastComponent(NamedTuple):
    """The end of a resolution: a directory that the walk holds open, and a name in it, or `.`."""

    directory: int
    name: bytes
    must_be_directory: bool


class Walk:
    """One resolution below `root`. A context manager that closes every descriptor the walk opened."""

    def __init__(self, root: int, path: bytes) -> None:
        self._path = path
        self._held = [root]
        self._remaining: list[bytes] = []  # remaining components in reverse order
        self._links = 0
        self._must_be_directory = False
        if 0 in path:
            raise ValueError("embedded null byte")
        if not path:
            raise self._error(errno.ENOENT)
        if len(path) >= PATH_MAX:
            raise self._error(errno.ENAMETOOLONG)
        self._push(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        while len(self._held) > 1:
            os.close(self._held.pop())

    def parent(self) -> LastComponent:
        """Walks to the directory of the last component, which is `.` if the path ends in `.` or `..`."""
        while self._remaining:
            name = self._remaining.pop()
            if name == b"..":
                self._up()
            elif name != b".":
                if not self._remaining:
                    return LastComponent(self._held[-1], name, self._must_be_directory)
                self._down(name)
        return LastComponent(self._held[-1], b".", True)

    def resolve(self) -> LastComponent:
        """Walks to the last component, following links at the end too."""
        last = self.parent()
        while self.follow(last):
            last = self.parent()
        return last

    def follow(self, last: LastComponent) -> bool:
        """If `last` is a link, adds its target to the remaining path and returns `True`."""
        try:
            target = os.readlink(last.name, dir_fd=last.directory)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return False
            raise
        self._links += 1
        if self._links > MAX_LINKS:
            raise self._error(errno.ELOOP)
        if _has_magic_links(last.directory):
            raise EscapesRoot(self._path)
        self._push(target)
        return True

    def _push(self, path: bytes) -> None:
        if path.startswith(b"/"):
            raise EscapesRoot(self._path)
        names = [name for name in path.split(b"/") if name]
        if not self._remaining:
            self._must_be_directory |= path.endswith(b"/")
        self._remaining.extend(reversed(names))

    def _up(self) -> None:
        # The kernel checks search permission before it handles `..`.
        os.stat(b".", dir_fd=self._held[-1])
        if len(self._held) == 1:
            raise EscapesRoot(self._path)
        os.close(self._held.pop())

    def _down(self, name: bytes) -> None:
        here = self._held[-1]
        try:
            self._held.append(os.open(name, O_WALK | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here))
        except OSError as error:
            # For a link with O_DIRECTORY, Linux gives ENOTDIR, other kernels ELOOP (FreeBSD: EMLINK).
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            if not self.follow(LastComponent(here, name, True)):
                raise self._error(errno.ENOTDIR) from None

    def _error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), os.fsdecode(self._path))


def walking_opener(root: int) -> Opener:
    """An opener below the directory descriptor `root`.

    The opener raises:
        EscapesRoot: an absolute path or link, a `..` above the root, a magic link of procfs.
        OSError: what open(2) gives; also ELOOP if a name stopped being a link meanwhile.
    """

    def open_below(path: bytes, flags: int, mode: int) -> int:
        with Walk(root, path) as walk:
            while True:
                opened = _open_last(walk, walk.parent(), flags, mode, path)
                if opened is not None:
                    return opened

    return open_below


def _open_last(walk: Walk, last: LastComponent, flags: int, mode: int, path: bytes) -> int | None:
    """Opens the last component. Returns `None` if it was a link, whose target is to be walked next."""
    if flags & os.O_CREAT and last.must_be_directory:
        # open_last_lookups checks this before the lookup, do_open for dots after it.
        number = errno.EISDIR
        if last.name == b".":
            os.stat(b".", dir_fd=last.directory)
            number = errno.EEXIST if flags & os.O_EXCL else errno.EISDIR
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    if last.must_be_directory:
        flags |= os.O_DIRECTORY
    try:
        opened = os.open(last.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=last.directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK) and walk.follow(last):
            return None
        error.filename = os.fsdecode(path)
        raise
    # O_PATH with O_NOFOLLOW opens the link itself (open(2)).
    if not flags & O_PATH or not stat.S_ISLNK(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    if walk.follow(last):
        return None
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))


def _has_magic_links(directory: int) -> bool:
    """Whether links in this directory are magic: in all of procfs except its top directory (proc(5))."""
    if sys.platform != "linux":
        return False
    try:
        top = os.lstat("/proc")
    except OSError:
        return False
    here = os.fstat(directory)
    return here.st_dev == top.st_dev and here.st_ino != top.st_ino
