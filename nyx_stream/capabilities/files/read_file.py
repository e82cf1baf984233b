"""Small files, whole: opened, read and closed in one go. Runs in a thread; knows nothing of rules."""

import os

from nyx_core.beneath import open_file
from nyx_stream.capabilities.files.operations import Site
from nyx_stream.errors import LimitExceeded

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_LEAST = 4096


def read_whole(site: Site, limit: int, plugin: str | None) -> bytes:
    """The content of a file of at most `limit` bytes; raises as `read_descriptor`."""
    descriptor = open_file(site.root, site.path, _READ, judge=site.judge)
    try:
        return read_descriptor(descriptor, limit, plugin)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, limit: int, plugin: str | None) -> bytes:
    """The content of an open file of at most `limit` bytes; not more than that is ever read.

    Raises:
        LimitExceeded: the file is larger.
    """
    said = os.fstat(descriptor).st_size
    pieces = []
    # The size is a hint: the file may grow, and procfs says 0 of files with content.
    left = 0 if said > limit else limit + 1
    # With one byte more than there should be, one read gets it all and the next sees the end.
    while left and (piece := os.read(descriptor, min(left, max(said + 1, _LEAST)))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        detail = "the file is larger than may be read at once"
        raise LimitExceeded(plugin=plugin, limit="read_bytes", allowed=limit, detail=detail)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
