"""The files service: opens every path below a granted directory, until the lease ends.

`FileService` is the protocol that a plugin's `Files` uses. `LocalFileService` carries it out in this process; a worker
reaches the one in its host by RPC.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias

from nyx_core import beneath
from nyx_stream.capabilities.files.access import AccessChecker
from nyx_stream.capabilities.files.operations import OperationRunner, RootedPath
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import LimitExceeded, Revoked
from nyx_stream.guard import NarrowedGuard, SandboxGuard
from nyx_stream.policy import NO_PLACES, Places
from nyx_stream.policy.limits import Term

OpenMode: TypeAlias = Literal["rb", "r+b", "wb", "w+b", "ab", "a+b", "xb", "x+b"]
"""How a descriptor is opened, as the mode of the built-in `open`. The buffer and the text layer are the facade's."""

_BINARY = getattr(os, "O_BINARY", 0)
_FLAGS: Mapping[str, int] = {
    "r": _BINARY,
    "w": _BINARY | os.O_CREAT | os.O_TRUNC,
    "a": _BINARY | os.O_CREAT | os.O_APPEND,
    "x": _BINARY | os.O_CREAT | os.O_EXCL,
}
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


class LocalFileService:
    """A `FileService` in this process.

    Args:
        guard: decides.
        lease: ends the service; `close` ends the lease.
        places: the directories of `$DATA` and `$PLUGIN`, as the guard has them.
        protected: the paths that plugin code is imported from; no policy lets a plugin write there.
        parent: the service that this one was narrowed from.
    """

    __slots__ = ("_guard", "_lease", "_places", "_protected", "_runner")

    def __init__(
        self,
        guard: SandboxGuard,
        lease: Lease,
        *,
        places: Places = NO_PLACES,
        protected: ImportPaths | None = None,
        parent: "LocalFileService | None" = None,
    ) -> None:
        lease.check()
        self._guard = guard
        self._lease = lease
        self._places = places
        self._protected = ImportPaths() if protected is None else protected
        checker = AccessChecker(guard, places, self._protected)
        self._runner: OperationRunner = OperationRunner(
            guard, lease, checker, None if parent is None else parent._runner
        )
        if parent is None:
            self.bind()

    def bind(self) -> None:
        """Opens the prefixes that the policy in force grants, as far as they aren't open yet.

        From then on each grant is that directory. To be called again when the policy has changed.
        """
        if not self._lease.ended:
            for rule in self._guard.policy.merged().bind(self._places).paths:
                self._runner.bind(rule.prefix)

    async def limits(self) -> FileLimits:
        limits = self._guard.limits
        return FileLimits(self._lease.plugin, limits.open_files, limits.read_bytes)

    def open(self, path: str, mode: OpenMode) -> Coroutine[Any, Any, int]:
        action: Literal["read", "write"] = "read" if mode == "rb" else "write"
        access = os.O_RDWR if "+" in mode else os.O_RDONLY if mode == "rb" else os.O_WRONLY
        flags = access | _FLAGS[mode[0]]

        def work(rooted: RootedPath) -> int:
            return beneath.open_file(rooted.root, rooted.path, flags, judge=rooted.judge)

        return self._runner.run(action, action, (path,), work, os.close)

    async def read_file(self, path: str) -> bytes:
        def work(rooted: RootedPath) -> bytes:
            descriptor = beneath.open_file(rooted.root, rooted.path, os.O_RDONLY | _BINARY, judge=rooted.judge)
            try:
                return read_descriptor(descriptor, self._guard.limits.read_bytes, self._lease.plugin)
            finally:
                os.close(descriptor)

        return await self._runner.run("read", "read", (path,), work)

    async def write_file(self, path: str, content: bytes) -> None:
        def work(rooted: RootedPath) -> None:
            beneath.replace_file(rooted.root, rooted.path, content, rooted.judge)

        await self._runner.run("write", "write", (path,), work)

    async def stat(self, path: str) -> os.stat_result:
        return await self._runner.run("stat", "read", (path,), lambda rooted: beneath.status(*rooted))

    async def list_directory(self, path: str) -> list[str]:
        return await self._runner.run("list", "read", (path,), lambda rooted: beneath.list_directory(*rooted))

    async def mkdir(self, path: str, mode: int, parents: bool, exist_ok: bool) -> None:
        def work(rooted: RootedPath) -> None:
            _make_directory(rooted, mode, parents, exist_ok)

        await self._runner.run("mkdir", "write", (path,), work)

    async def rename(self, source: str, target: str) -> None:
        def work(old: RootedPath, new: RootedPath) -> None:
            beneath.rename((old.root, old.path), (new.root, new.path), (old.judge, new.judge))

        await self._runner.run("rename", "move", (source, target), work)

    async def remove(self, path: str, tree: bool) -> None:
        remove = beneath.remove_tree if tree else beneath.remove
        await self._runner.run("remove", "move", (path,), lambda rooted: remove(*rooted))

    def narrow(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> "LocalFileService":
        rules = [self._runner.narrowed_rule(prefix, mode) for prefix in prefixes]
        guard, lease = NarrowedGuard(self._guard, paths=rules), self._lease.child(terms)
        return LocalFileService(guard, lease, places=self._places, protected=self._protected, parent=self)

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        self._lease.hold(lambda: callback(self._lease.error()))

    def close(self) -> None:
        self._lease.revoke("it was closed")


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


def _make_directory(rooted: RootedPath, mode: int, parents: bool, exist_ok: bool) -> None:
    root, path, judge = rooted
    if parents:
        for end in range(len(path)):
            if path[end] in ("/", os.sep) and path[:end].strip("/\\."):
                with contextlib.suppress(FileExistsError):
                    beneath.make_directory(root, path[:end], judge=judge)
    try:
        beneath.make_directory(root, path, mode, judge)
    except FileExistsError:
        if not exist_ok or not stat.S_ISDIR(beneath.status(root, path, judge).st_mode):
            raise
