"""The walking twin of openat2: component by component with O_NOFOLLOW, links resolved here. Knows no policy.

It serves kernels and filters without openat2, and macOS; it is also the oracle that the fast way is tested
against, so where a rule of the kernel's own walk is surprising, it is followed (fs/namei.c).

No step trusts a name twice: each directory is held open, `..` goes back to the descriptor that the walk came
from, and a link is read from the directory that is held.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import NamedTuple, Self

from nyx_core.beneath.errors import EscapesRoot

Opener = Callable[[bytes, int, int], int]
"""`(path, open flags, mode) -> descriptor`, below the root that it was made for."""

MAX_LINKS = 40
"""Links followed in one resolution before ELOOP: MAXSYMLINKS of include/linux/namei.h."""

PATH_MAX = 4096
"""Bytes of a path with its NUL, include/uapi/linux/limits.h: a longer one is ENAMETOOLONG before any
look-up."""

# Search permission is enough to walk through a directory. macOS has O_SEARCH for that and no O_PATH.
O_WALK: int = getattr(os, "O_PATH", getattr(os, "O_SEARCH", os.O_RDONLY)) | os.O_CLOEXEC
O_PATH: int = getattr(os, "O_PATH", 0)


class Spot(NamedTuple):
    """Where a resolution ended: a directory that is held open, and a name in it that is no link (or `.`)."""

    directory: int
    name: bytes
    must_be_directory: bool


class Walk:
    """One resolution below `root`. A context manager: leaving it closes every descriptor the walk opened."""

    def __init__(self, root: int, path: bytes) -> None:
        self._path = path
        self._held = [root]
        self._left: list[bytes] = []  # components still to go, the next one last
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

    def parent(self) -> Spot:
        """Goes to the directory of the last component, which is `.` where the path ends in `.` or `..`."""
        while self._left:
            name = self._left.pop()
            if name == b"..":
                self._up()
            elif name != b".":
                if not self._left:
                    return Spot(self._held[-1], name, self._must_be_directory)
                self._down(name)
        return Spot(self._held[-1], b".", True)

    def follow(self, spot: Spot) -> bool:
        """Takes the link at `spot` into what is left to walk, or says `False` if there is no link."""
        try:
            target = os.readlink(spot.name, dir_fd=spot.directory)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return False
            raise
        self._links += 1
        if self._links > MAX_LINKS:
            raise self._error(errno.ELOOP)
        if _is_magic(spot.directory):
            raise EscapesRoot(self._path)
        self._push(target)
        return True

    def _push(self, path: bytes) -> None:
        if path.startswith(b"/"):
            raise EscapesRoot(self._path)
        names = [name for name in path.split(b"/") if name]
        if not self._left:
            self._must_be_directory |= path.endswith(b"/")
        self._left.extend(reversed(names))

    def _up(self) -> None:
        # The kernel asks for search permission before it looks at `..`.
        os.stat(b".", dir_fd=self._held[-1])
        if len(self._held) == 1:
            raise EscapesRoot(self._path)
        os.close(self._held.pop())

    def _down(self, name: bytes) -> None:
        here = self._held[-1]
        try:
            self._held.append(os.open(name, O_WALK | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here))
        except OSError as error:
            # With O_DIRECTORY Linux says ENOTDIR of a link, other kernels ELOOP (FreeBSD: EMLINK).
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            if not self.follow(Spot(here, name, True)):
                raise self._error(errno.ENOTDIR) from None

    def _error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), os.fsdecode(self._path))


def walking_opener(root: int) -> Opener:
    """An opener below the directory descriptor `root`, `(path, open flags, mode) -> descriptor`.

    The opener raises:
        EscapesRoot: an absolute path or link, a `..` above the root, a magic link of procfs.
        OSError: what open(2) gives; ELOOP also if a name was a link and is none any more.
    """

    def open_below(path: bytes, flags: int, mode: int) -> int:
        with Walk(root, path) as walk:
            while True:
                opened = _open_spot(walk, walk.parent(), flags, mode, path)
                if opened is not None:
                    return opened

    return open_below


def _open_spot(walk: Walk, spot: Spot, flags: int, mode: int, path: bytes) -> int | None:
    """Opens the last component, or returns `None` when it was a link and the walk goes on."""
    if flags & os.O_CREAT and spot.must_be_directory:
        # As open_last_lookups does before it looks the name up, and do_open for dots, which it does look up.
        number = errno.EISDIR
        if spot.name == b".":
            os.stat(b".", dir_fd=spot.directory)
            number = errno.EEXIST if flags & os.O_EXCL else errno.EISDIR
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    if spot.must_be_directory:
        flags |= os.O_DIRECTORY
    try:
        opened = os.open(spot.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=spot.directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK) and walk.follow(spot):
            return None
        error.filename = os.fsdecode(path)
        raise
    # O_PATH with O_NOFOLLOW opens the link itself (open(2)).
    if not flags & O_PATH or not stat.S_ISLNK(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    if walk.follow(spot):
        return None
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))


def _is_magic(directory: int) -> bool:
    """Whether links of this directory are magic: all of procfs but the ones at its top are (proc(5))."""
    if sys.platform != "linux":
        return False
    try:
        top = os.lstat("/proc")
    except OSError:
        return False
    here = os.fstat(directory)
    return here.st_dev == top.st_dev and here.st_ino != top.st_ino
