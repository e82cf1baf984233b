"""The two refusals that are this package's own. Every other failure is the OSError that the kernel gave."""

import errno
import os


class EscapesRoot(OSError):
    """The path leads out of the root, or through a magic link of procfs. Nothing was changed. `errno` is EXDEV.

    A class of its own because EXDEV has another meaning too: rename(2) across mount points.
    """

    def __init__(self, path: str | bytes) -> None:
        super().__init__(errno.EXDEV, "the path leads out of the granted directory", os.fsdecode(path))


class NotPlain(OSError):
    """The path names a FIFO, a socket or a device. It was not waited for. `errno` is ENXIO."""

    def __init__(self, path: str | bytes) -> None:
        super().__init__(errno.ENXIO, "neither a regular file nor a directory", os.fsdecode(path))
