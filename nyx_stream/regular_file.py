"""Opening a file that somebody named for the host to read: a regular one, or an error at once. Knows no content."""

import errno
import os
import stat
from typing import BinaryIO

_FLAGS = os.O_RDONLY
for _name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)


class NotRegular(OSError):
    """There is something else than a regular file: a directory, a pipe, a device or a socket."""


def open_regular(path: str | os.PathLike[str], *, links: bool = True) -> BinaryIO:
    """Opens a regular file to be read. The caller bounds what it reads: a file may say that it is small, and grow.

    Args:
        path: the file.
        links: whether the path may be that of a symbolic link to one.

    Raises:
        NotRegular: it is no regular file.
        OSError: it cannot be opened.
    """
    # Looked at before it is opened, for opening a device does something: a tape is rewound. Opened without waiting, and
    # looked at again, for by then it may be a pipe that nobody writes.
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
        raise NotRegular(errno.EINVAL, "is no regular file", os.fspath(path))
