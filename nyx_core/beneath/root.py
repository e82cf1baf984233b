"""The root on POSIX: a directory that is held open, below which paths are opened.

The grant is that directory, not its name. If another directory takes the name later, the root doesn't follow.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass

from nyx_core.beneath.errors import EscapesRoot, Judge
from nyx_core.beneath.openat2 import openat2_opener, probe
from nyx_core.beneath.walk import O_PATH, O_WALK, Opener, walking_opener

ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as os.fsencode reads them
_NOT_A_NAME = ("", ".", "..")
_RETRY_WITH_OPENER = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Root:
    """A directory held open by `descriptor`. If a single file was granted, `file_name` is its name in the directory.

    The owner calls `close`, and must not use the root afterwards: the number may then belong to another file.
    """

    descriptor: int
    opener: Opener
    file_name: str | None = None

    def close(self) -> None:
        """Closes the descriptor. Descriptors returned earlier stay open."""
        os.close(self.descriptor)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """Opens `path` below the root, of any type, with exactly these flags."""
        if self.file_name is not None:
            return os.open(self.inner_path(path), flags | os.O_NOFOLLOW, mode, dir_fd=self.descriptor)
        if "/" not in path and not flags & O_PATH and path not in _NOT_A_NAME:
            # A single name needs no resolver: it can only be an entry of the root, and if that is a link,
            # O_NOFOLLOW leaves it to the opener. (With O_PATH it would open the link itself.)
            try:
                return os.open(path, flags | os.O_NOFOLLOW, mode, dir_fd=self.descriptor)
            except OSError as error:
                if error.errno not in _RETRY_WITH_OPENER:
                    raise
        elif flags & os.O_CREAT:
            self.require_name(path)
        return self.opener(path.encode(ENCODING, ERRORS), flags, mode)

    def inner_path(self, path: str) -> str:
        """The path relative to `descriptor`. For a granted file, only the empty path and `.` lead to it."""
        if self.file_name is None:
            return path
        if path not in ("", "."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return self.file_name

    def require_name(self, path: str) -> None:
        """Checks that `path` ends in a name that can be created, renamed or removed.

        Raises:
            IsADirectoryError: `path` ends in `.`, `..` or `/`.
            EscapesRoot: it also leads out of the root.
        """
        if path and path.rpartition("/")[2] not in _NOT_A_NAME:
            return
        self.require_below(path or ".")
        raise IsADirectoryError(errno.EISDIR, "the path does not end in a name", path)

    def require_below(self, path: str) -> None:
        """Raises `EscapesRoot` if the directory `path` is outside the root. Ignores one that can't be opened."""
        try:
            os.close(self.open(path, O_WALK | os.O_DIRECTORY))
        except EscapesRoot:
            raise
        except OSError:
            return

    def ask(self, judge: Judge | None, descriptor: int, name: str | None = None) -> None:
        """Calls `judge`, if there is one, with the canonical path of `descriptor`, or of `name` in that directory.

        Raises:
            EscapesRoot: the path is no longer below the root, or the kernel can't tell it.
        """
        if judge is None:
            return
        base, path = descriptor_path(self.descriptor), descriptor_path(descriptor)
        inside = base if base.endswith("/") else f"{base}/"
        if not path.startswith("/") or (path != base and not path.startswith(inside)):
            raise EscapesRoot(path)
        below = path[len(inside) :]
        if name is not None:
            below = f"{below}/{name}" if below else name
        judge("" if self.file_name is not None else below, f"{inside}{below}" if below else base)


def native_opener(root: int) -> Opener:
    """openat2 if this process may call it, with the walk as fallback; otherwise the walk."""
    walking = walking_opener(root)
    return openat2_opener(root, walking) if probe() is None else walking


def open_root(path: str, opener: Callable[[int], Opener] = native_opener) -> Root:
    """Opens the directory or regular file `path` as a root. Links in `path` are followed now, and not again later.

    Raises:
        OSError: what open(2) gives.
    """
    file_name = None
    try:
        descriptor = os.open(path, O_WALK | os.O_DIRECTORY)
    except NotADirectoryError:
        real = os.path.realpath(path)
        if not stat.S_ISREG(os.lstat(real).st_mode):
            raise
        directory, file_name = os.path.split(real)
        descriptor = os.open(directory, O_WALK | os.O_DIRECTORY)
    return Root(descriptor, opener(descriptor), file_name)


def descriptor_path(descriptor: int) -> str:
    """The current path of `descriptor`. Linux appends ` (deleted)` if it has none any more.

    Source: proc_pid_fd(5); F_GETPATH of fcntl(2) on macOS.

    Raises:
        OSError: procfs isn't mounted, or the platform can't tell.
    """
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")
