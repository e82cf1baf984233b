"""The errors of this package, and the callback with which a caller refuses an operation.

Every other failure is the `OSError` that the kernel gave.
"""

import errno
import os
from collections.abc import Callable

Judge = Callable[[str, str], None]
"""`(below, absolute)`: the canonical path that an operation reached, relative to the root (`""` is the root itself) and
absolute. It's called before anything changes: before a file is created, truncated, renamed or removed, and before a
descriptor is returned. It raises to refuse the operation."""


class EscapesRoot(OSError):
    """The path leads out of the root, or through a magic link of procfs. Nothing was changed. `errno` is EXDEV.

    It has a class because EXDEV has a second meaning: rename(2) across mount points.
    """

    def __init__(self, path: str | bytes) -> None:
        super().__init__(errno.EXDEV, "the path leads out of the granted directory", os.fsdecode(path))


class NotPlain(OSError):
    """The path names a FIFO, a socket or a device. The operation didn't wait for it. `errno` is ENXIO."""

    def __init__(self, path: str | bytes) -> None:
        super().__init__(errno.ENXIO, "neither a regular file nor a directory", os.fsdecode(path))
