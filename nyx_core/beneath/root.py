"""The root on POSIX: a directory that is held open, and the one way to reach what lies below it.

The grant is that directory, not its name: what later stands under the name is another thing. Knows no policy;
who wants to judge what a path really led to passes a `Judge` to the operations.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass

from nyx_core.beneath.errors import EscapesRoot
from nyx_core.beneath.judge import Judge
from nyx_core.beneath.openat2 import openat2_opener, probe
from nyx_core.beneath.walk import O_PATH, O_WALK, Opener, walking_opener

ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as os.fsencode reads them
_NO_NAMES = ("", ".", "..")
_ANOTHER_TRY = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Root:
    """A directory held open by `descriptor`. Where a single file was granted, `only` is its name in there.

    The owner calls `close`, and sees to it that no use begins after that: the number may be another file's then.
    """

    descriptor: int
    opener: Opener
    only: str | None = None

    def close(self) -> None:
        """Closes the descriptor. Descriptors handed out before stay open."""
        os.close(self.descriptor)

    def reach(self, path: str, flags: int, mode: int = 0o666) -> int:
        """Opens whatever `path` names below the root, with exactly these flags. The operations build on it."""
        if self.only is not None:
            return os.open(self.inner(path), flags | os.O_NOFOLLOW, mode, dir_fd=self.descriptor)
        if "/" not in path and not flags & O_PATH and path not in _NO_NAMES:
            # A single name needs no resolver: it can only be an entry of the root, and if that is a link,
            # O_NOFOLLOW leaves it to the opener. (With O_PATH it would open the link itself.)
            try:
                return os.open(path, flags | os.O_NOFOLLOW, mode, dir_fd=self.descriptor)
            except OSError as error:
                if error.errno not in _ANOTHER_TRY:
                    raise
        elif flags & os.O_CREAT:
            self.refuse_unnamed(path)
        return self.opener(path.encode(ENCODING, ERRORS), flags, mode)

    def inner(self, path: str) -> str:
        """The path below `descriptor`: of a root that is a file, the file's name, and nothing else is below it."""
        if self.only is None:
            return path
        if path not in ("", "."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return self.only

    def refuse_unnamed(self, path: str) -> None:
        """Raises if `path` ends in `.`, `..` or `/`, which is no name that could be made, moved or removed.

        Raises:
            EscapesRoot: it leads out of the root as well, which is the graver thing to say.
            IsADirectoryError: otherwise.
        """
        if path and path.rpartition("/")[2] not in _NO_NAMES:
            return
        self.refuse_escape(path or ".")
        raise IsADirectoryError(errno.EISDIR, "the path ends in no name that could be changed", path)

    def refuse_escape(self, path: str) -> None:
        """Raises `EscapesRoot` if the directory `path` is out of the root; says nothing if there is none."""
        try:
            os.close(self.reach(path, O_WALK | os.O_DIRECTORY))
        except EscapesRoot:
            raise
        except OSError:
            return

    def judge(self, descriptor: int, judge: Judge | None, name: str | None = None) -> None:
        """Calls `judge` with the canonical place of `descriptor`, or of `name` in that directory.

        Raises:
            EscapesRoot: it is not below the root any more, or the kernel does not tell its place.
        """
        if judge is None:
            return
        base, place = descriptor_path(self.descriptor), descriptor_path(descriptor)
        inside = base if base.endswith("/") else f"{base}/"
        if not place.startswith("/") or (place != base and not place.startswith(inside)):
            raise EscapesRoot(place)
        below = place[len(inside) :]
        if name is not None:
            below = f"{below}/{name}" if below else name
        judge("" if self.only is not None else below, f"{inside}{below}" if below else base)


def native_opener(root: int) -> Opener:
    """openat2 where this process may use it, backed by the walk; else the walk."""
    walking = walking_opener(root)
    return openat2_opener(root, walking) if probe() is None else walking


def open_root(path: str, opener: Callable[[int], Opener] = native_opener) -> Root:
    """Opens the directory or regular file `path` as a root; links in `path` are followed, now and never again.

    Raises:
        OSError: what open(2) gives; ENOENT if nothing is there.
    """
    only = None
    try:
        descriptor = os.open(path, O_WALK | os.O_DIRECTORY)
    except NotADirectoryError:
        real = os.path.realpath(path)
        if not stat.S_ISREG(os.lstat(real).st_mode):
            raise
        directory, only = os.path.split(real)
        descriptor = os.open(directory, O_WALK | os.O_DIRECTORY)
    return Root(descriptor, opener(descriptor), only)


def descriptor_path(descriptor: int) -> str:
    """Where the kernel says this descriptor is now; Linux appends ` (deleted)` to what has no name any more.

    Source: proc_pid_fd(5); F_GETPATH of fcntl(2) on macOS.

    Raises:
        OSError: procfs is not mounted, or the platform cannot tell.
    """
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")
