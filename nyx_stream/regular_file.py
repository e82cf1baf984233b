"""Opens a file that an operator or a plugin names, if it is a regular file, without ever blocking."""

import errno
import os
import stat
from typing import BinaryIO

_FLAGS = os.O_RDONLY
for _name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)


class NotRegular(OSError):
    """The path is not a regular file, but a directory, a pipe, a device or a socket."""


def open_regular(path: str | os.PathLike[str], *, links: bool = True) -> BinaryIO:
    """Opens a regular file for reading. The caller must bound what it reads, because the file may grow meanwhile.

    Args:
        path: the file.
        links: whether the path may be a symbolic link to a file.

    Raises:
        NotRegular: it isn't a regular file.
        OSError: it cannot be opened.
    """
    # Checked before opening, because opening a device can have effects, such as rewinding a tape. Opened without
    # blocking and checked again, because the file may have been replaced by a pipe without a writer.
    _must_be_regular(os.stat(path, follow_symlinks=links), path)
    descriptor = os.open(path, _FLAGS | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    try:
        _must_be_regular(os.fstat(descriptor), path)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _must_be_regular(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotRegular(errno.EINVAL, "not a regular file", os.fspath(path))
