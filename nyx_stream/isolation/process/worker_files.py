"""Worker side of `self.files`: the face of `GuardedFiles`, around descriptors that the host opened.

Decides nothing. A file is a real aiofiles file, with the buffers and the text layer of this process. When the host
revokes the capability, nothing new is opened; a file that is open already stays readable, and writable if it was opened
for that, until it is closed or the plugin ends: a descriptor cannot be taken back.
"""

import asyncio
import errno
import os
from asyncio import AbstractEventLoop
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

from aiofiles.base import AiofilesContextManager

from nyx_stream.capabilities.files.guarded_files import Listing, Path
from nyx_stream.capabilities.files.layering import Layers, layers_of
from nyx_stream.capabilities.files.opened import OpenFiles
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import LimitExceeded
from nyx_stream.guard import path_text
from nyx_stream.isolation.process.line import Line
from nyx_stream.isolation.process.messages import Fault, error_of
from nyx_stream.isolation.process.wire_values import INLINE, PASSING, pack, pack_path, unpack
from nyx_stream.isolation.process.worker_bodies import adopt, ask_with_body, whole

_AT_ONCE = PASSING // 2
"""Descriptors that whole reads and listings may take at once, beside those of open files."""


class Facts(NamedTuple):
    """What the host says about the grant."""

    plugin: str
    open_files: int
    read_bytes: int


class RemoteFiles:
    """Files below the granted prefixes, opened by the host.

    Every operation raises what those of `GuardedFiles` raise, with the host's text.
    """

    __slots__ = ("_files", "_line", "_most_open", "_passing")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._files: OpenFiles | None = None
        self._passing = asyncio.Semaphore(_AT_ONCE)

    def open(
        self,
        file: Path,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        *,
        loop: AbstractEventLoop | None = None,
        executor: Executor | None = None,
    ) -> AiofilesContextManager[Any]:
        """Opens a regular file: `async with files.open(…) as f` or `f = await files.open(…)`.

        Raises:
            ValueError, TypeError, LookupError: wrong arguments, as the built-in `open`; nothing was opened.
            LimitExceeded: `open_files` of the grant are open.
        """
        layers = layers_of(mode, buffering, encoding, errors, newline, closefd)
        return AiofilesContextManager(self._open(file, mode, layers, loop, executor))

    async def read_bytes(self, path: Path) -> bytes:
        """The content of a file. Raises `LimitExceeded` if it has more than `read_bytes` of the grant."""
        async with self._passing:
            answered = await self._line.ask("open", path=pack_path(path_text(path)), mode="rb")
            facts = self._learn(answered.value)
            descriptor = answered.descriptors[0]
            try:
                if os.fstat(descriptor).st_size > INLINE:  # from a disk that may take a while
                    return await asyncio.shield(asyncio.to_thread(_read_and_close, os.dup(descriptor), facts))
                return _read(descriptor, facts)
            finally:
                os.close(descriptor)

    async def read_text(self, path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a file as text, line ends as they are."""
        return (await self.read_bytes(path)).decode(encoding, errors)

    async def write_bytes(self, path: Path, data: bytes | bytearray | memoryview) -> int:
        """Replaces a file atomically, or creates it, and returns its size: a reader sees the old or the new content."""
        content, text = bytes(data), pack_path(path_text(path))
        if len(content) <= INLINE:
            await self._line.ask("write", path=text, content=pack(content))
        else:
            async with self._passing:
                await ask_with_body(self._line, "write", whole(content), path=text)
        return len(content)

    async def write_text(self, path: Path, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Replaces a file by text, as `write_bytes` does, and returns the number of characters."""
        await self.write_bytes(path, data.encode(encoding, errors))
        return len(data)

    async def stat(self, path: Path) -> os.stat_result:
        """The status of what the path leads to."""
        fields, more = (await self._line.ask("stat", path=pack_path(path_text(path)))).value
        return os.stat_result(fields, more)

    async def exists(self, path: Path) -> bool:
        """Whether the path leads to something. A path that is not granted raises, whatever is there."""
        try:
            await self.stat(path)
        except OSError as error:
            # What pathlib.Path.exists takes for "no"; a denial has an errno of its own.
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def iterdir(self, path: Path = ".") -> Listing:
        """The entries of a directory: `async for entry in files.iterdir(p)`, or `await` for all as a list.

        Each is `path` joined with a name, fit to be passed to the other operations; the order is the system's.
        """
        return Listing(partial(self._list, path))

    async def mkdir(self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a directory; the arguments are those of `pathlib.Path.mkdir`."""
        await self._line.ask(
            "mkdir", path=pack_path(path_text(path)), mode=mode, parents=bool(parents), exist_ok=bool(exist_ok)
        )

    async def rename(self, source: Path, target: Path) -> None:
        """Gives a file, link or directory another name, and replaces what stood there, as rename(2) does."""
        await self._line.ask("rename", source=pack_path(path_text(source)), target=pack_path(path_text(target)))

    async def remove(self, path: Path, *, tree: bool = False) -> None:
        """Removes a file, a link or an empty directory; with `tree` a directory and all that is in it."""
        await self._line.ask("remove", path=pack_path(path_text(path)), tree=bool(tree))

    async def _open(
        self,
        file: Path,
        mode: str,
        layers: Layers,
        loop: AbstractEventLoop | None,
        executor: Executor | None,
    ) -> Any:
        given = path_text(file)
        _check_arguments(layers)
        files = await self._opening()
        with files.room():
            answered = await self._line.ask("open", path=pack_path(given), mode=_raw(mode))
            self._learn(answered.value)
            opened = layers(given, opener=lambda *_: answered.descriptors[0])
            return files.admit(opened, loop, executor)

    async def _list(self, path: Path) -> list[str]:
        text = path_text(path)
        async with self._passing:
            answered = await self._line.ask("list", path=pack_path(text))
            return [os.fsdecode(name) for name in (await self._listing(answered)).split(b"\0") if name]

    async def _listing(self, answered: Any) -> bytes:
        if not answered.descriptors:
            return unpack(answered.value)
        pipe, parts = adopt(answered.descriptors[0]), []
        try:
            while (part := await pipe.receive(self._failed)) is not None:
                parts.append(part)
        finally:
            pipe.close()
        return b"".join(parts)

    async def _opening(self) -> OpenFiles:
        if self._files is None:
            facts = self._learn((await self._line.ask("facts")).value)
            self._files = OpenFiles(Lease(facts.plugin, self._line.capability), lambda: self._most_open)
        return self._files

    def _learn(self, value: dict[str, Any]) -> Facts:
        facts = Facts(*(value[name] for name in Facts._fields))
        self._most_open = facts.open_files
        return facts

    def _failed(self, fault: Fault) -> Exception:
        return error_of(fault, self._line.capability)


class _Reached(Exception):
    """The built-in `open` found its arguments in order and asked for a descriptor."""


def _check_arguments(layers: Layers) -> None:
    """Raises what the built-in `open` says about its arguments, before the host is asked."""

    def reached(*_: object) -> int:
        raise _Reached

    try:
        layers("path", opener=reached)
    except _Reached:
        return


def _raw(mode: str) -> str:
    kind = next(letter for letter in mode if letter in "rwax")
    return f"{kind}+b" if "+" in mode else f"{kind}b"


def _read_and_close(descriptor: int, facts: Facts) -> bytes:
    try:
        return _read(descriptor, facts)
    finally:
        os.close(descriptor)


def _read(descriptor: int, facts: Facts) -> bytes:
    """The content of an open file. Raises `LimitExceeded` if it has more than `read_bytes`."""
    said = os.fstat(descriptor).st_size
    pieces = []
    left = 0 if said > facts.read_bytes else facts.read_bytes + 1
    while left and (piece := os.read(descriptor, min(left, max(said + 1, 4096)))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        detail = "the file is larger than may be read at once"
        raise LimitExceeded(plugin=facts.plugin, limit="read_bytes", allowed=facts.read_bytes, detail=detail)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def files(line: Line) -> RemoteFiles:
    """A `ProxyFactory`."""
    return RemoteFiles(line)
