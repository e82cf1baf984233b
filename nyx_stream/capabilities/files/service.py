"""The protocol that a plugin's `Files` uses to reach files.

`LocalFileService` carries it out in this process; a worker reaches the one in its host by RPC.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

from nyx_stream.errors import LimitExceeded, Revoked
from nyx_stream.policy.limits import Term

OpenMode: TypeAlias = Literal["rb", "r+b", "wb", "w+b", "ab", "a+b", "xb", "x+b"]
"""How a descriptor is opened, as the mode of the built-in `open`. The buffer and the text layer are the facade's."""

_MIN_READ = 4096


class FileLimits(NamedTuple):
    """The limits that a facade enforces, and the id of the plugin, for its errors."""

    plugin: str | None
    open_files: int
    read_bytes: int


class FileService(Protocol):
    """Files below the granted prefixes. Paths are exactly `str`.

    An operation does, and raises, what the method of `files.Files` does that is named like it.
    """

    async def limits(self) -> FileLimits:
        """Returns the limits in force."""

    async def open(self, path: str, mode: OpenMode) -> int:
        """Opens a regular file. The caller closes the descriptor, which can outlive the lease."""

    async def read_file(self, path: str) -> bytes: ...

    async def write_file(self, path: str, content: bytes) -> None: ...

    async def stat(self, path: str) -> os.stat_result: ...

    async def list_directory(self, path: str) -> list[str]:
        """Returns the names in a directory, without the path."""

    async def mkdir(self, path: str, mode: int, parents: bool, exist_ok: bool) -> None: ...

    async def rename(self, source: str, target: str) -> None: ...

    async def remove(self, path: str, tree: bool) -> None: ...

    def narrow(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> Self:
        """Returns a service for a part of what is granted here, on a lease below this one."""

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        """Calls `callback` once, when the lease ends, with the error for what is held open through it."""

    def close(self) -> None:
        """Ends the lease."""


def read_descriptor(descriptor: int, limit: int, plugin: str | None) -> bytes:
    """Returns the content of an open file, and never reads more than one byte beyond `limit`.

    Raises:
        LimitExceeded: the file is larger than `limit` bytes.
    """
    size = os.fstat(descriptor).st_size
    chunks = []
    # The size is only a hint: the file may grow, and procfs says 0 for files that have content.
    left = 0 if size > limit else limit + 1
    # One byte more than the size, so that one read gets everything and the next one sees the end.
    while left and (chunk := os.read(descriptor, min(left, max(size + 1, _MIN_READ)))):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        detail = "the file is larger than may be read at once"
        raise LimitExceeded(plugin=plugin, limit="read_bytes", allowed=limit, detail=detail)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
