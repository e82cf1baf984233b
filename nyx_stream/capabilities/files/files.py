"""The object that a plugin holds as `self.files`, at every isolation level."""

import asyncio
import encodings
import errno
import io
import os
import weakref
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from copy import copy
from functools import lru_cache, partial
from typing import Any, TypeAlias, cast

from aiofiles.base import AiofilesContextManager
from aiofiles.threadpool import wrap

from nyx_stream.attribution import as_host, running
from nyx_stream.capabilities.files.service import FileLimits, FileService, OpenMode
from nyx_stream.errors import LimitExceeded, Revoked
from nyx_stream.guard import path_text
from nyx_stream.policy.limits import parse_terms

Path: TypeAlias = str | os.PathLike[str]


class Listing:
    """The entries of a directory, read when it is awaited or iterated."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], Coroutine[Any, Any, list[str]]]) -> None:
        self._read = read

    def __await__(self) -> Generator[Any, Any, list[str]]:
        return self._read().__await__()

    async def __aiter__(self) -> AsyncIterator[str]:
        for entry in await self._read():
            yield entry


class Files:
    """Files below the granted prefixes.

    A relative path is relative to `$DATA`. Links inside a prefix are followed.

    Every operation raises:
        FilesystemDenied: no rule grants it, a rule denies it, or it leads out of what is granted. Audited.
        Revoked: the lease has ended.
        OSError: the system's answer for a path that is granted: FileNotFoundError, ELOOP, …
    """

    __slots__ = ("__weakref__", "_open_files", "_service")

    def __init__(self, service: FileService, parent: "Files | None" = None) -> None:
        self._service = service
        self._open_files: OpenFiles = OpenFiles(None if parent is None else parent._open_files)
        service.on_end(self._open_files.end)

    def narrow(self, *prefixes: Path, mode: str = "r", **terms: object) -> "Files":
        """Returns files for a part of this grant, to hand on: `self.files.narrow("reports/", mode="r", ttl="60s")`.

        It allows what both its prefixes and this capability allow, now and later. It ends with this one, by `close`, or
        when its terms are over (see `LeaseTerms`), and what it uses up is used up here too. It can be narrowed further.
        A prefix that is itself a link grants nothing, because what it leads to has another path.

        Args:
            prefixes: one or more paths.
            mode: `"r"` or `"rw"`.
            terms: `ttl`, `opens`.

        Raises:
            FilesystemDenied: a prefix is not granted here in that mode; audited.
            ValueError: a mode or a term is wrong, or there is no prefix.
            LimitExceeded: level `process` only: the plugin holds as many narrowed capabilities as the host keeps.
        """
        if mode not in ("r", "rw") or not prefixes:
            raise ValueError('files are narrowed to one prefix or more, with the mode "r" or "rw"')
        limits = parse_terms("files", terms)
        return Files(self._service.narrow([path_text(prefix) for prefix in prefixes], mode, limits), self)

    def close(self) -> None:
        """Ends every open file and refuses every further operation. Call it on the event loop's thread."""
        self._service.close()

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

        Takes the arguments of `aiofiles.open`, except an opener, and returns the same objects.

        Raises:
            ValueError, TypeError, LookupError: wrong arguments, as the built-in `open`; nothing was opened.
            LimitExceeded: `open_files` of the grant are open.
        """
        if not closefd:
            raise ValueError("cannot use closefd=False with a file name")
        # The file is opened as the host, so no code of the plugin may run in it: no method of a subclass of int or
        # str, and no codec that the plugin has registered.
        if type(mode) is not str or type(buffering) is not int:
            raise TypeError("mode must be a str, buffering an int")
        for value in (encoding, errors, newline):
            if value is not None and type(value) is not str:
                raise TypeError("encoding, errors and newline must be str or None")
        if encoding is not None and encodings.search_function(encoding) is None:
            raise LookupError(f"unknown encoding: {encoding}")
        open_mode = _open_mode(mode, min(buffering, 2), encoding is not None, errors is not None, newline is not None)
        make_file = partial(io.open, mode=mode, buffering=buffering, encoding=encoding, errors=errors, newline=newline)
        return AiofilesContextManager(self._open(file, open_mode, make_file, loop, executor))

    async def read_bytes(self, path: Path) -> bytes:
        """Returns the content of a file. Raises `LimitExceeded` if it has more than `read_bytes` of the grant."""
        return await self._service.read_file(path_text(path))

    async def read_text(self, path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Returns the content of a file as text, with the line ends unchanged."""
        return (await self.read_bytes(path)).decode(encoding, errors)

    async def write_bytes(self, path: Path, data: bytes | bytearray | memoryview) -> int:
        """Replaces a file atomically, or creates it, and returns its size: a reader sees the old or the new content."""
        content = bytes(data)
        await self._service.write_file(path_text(path), content)
        return len(content)

    async def write_text(self, path: Path, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Replaces a file by text, as `write_bytes` does, and returns the number of characters."""
        await self.write_bytes(path, data.encode(encoding, errors))
        return len(data)

    async def stat(self, path: Path) -> os.stat_result:
        """Returns the status of the file or directory that the path leads to."""
        return await self._service.stat(path_text(path))

    async def exists(self, path: Path) -> bool:
        """Tells whether the path leads to a file or directory. A path that is not granted raises in any case."""
        try:
            await self.stat(path)
        except OSError as error:
            # The errors that pathlib.Path.exists takes for "no"; a denial has another errno.
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def iterdir(self, path: Path = ".") -> Listing:
        """Returns the entries of a directory: use `async for entry in files.iterdir(p)`, or await it for a list.

        Each entry is `path` joined with a name and can be passed to the other operations. The order is the system's.
        """
        return Listing(partial(self._list, path))

    async def mkdir(self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a directory; the arguments are those of `pathlib.Path.mkdir`."""
        await self._service.mkdir(path_text(path), int(mode), bool(parents), bool(exist_ok))

    async def rename(self, source: Path, target: Path) -> None:
        """Renames a file, a link or a directory, and replaces the target as rename(2) does."""
        await self._service.rename(path_text(source), path_text(target))

    async def remove(self, path: Path, *, tree: bool = False) -> None:
        """Removes a file, a link or an empty directory; with `tree`, a directory and everything in it."""
        await self._service.remove(path_text(path), bool(tree))

    async def _list(self, path: Path) -> list[str]:
        text = path_text(path)
        names = await self._service.list_directory(text)
        return names if text == "." else [os.path.join(text, name) for name in names]

    async def _open(
        self,
        path: Path,
        mode: OpenMode,
        make_file: "Callable[..., File]",
        loop: AbstractEventLoop | None,
        executor: Executor | None,
    ) -> Any:
        text = path_text(path)
        with self._open_files.reserve(await self._service.limits()):
            descriptor = await self._service.open(text, mode)
            token = running.set(None)  # as `as_host`, for one call of the built-in open
            try:
                file = make_file(text, opener=lambda *_: descriptor)
            finally:
                running.reset(token)
            opened: Any = wrap(file, loop=loop, executor=executor)
            # A narrowed service ends when its facade is gone, and the file with it.
            opened._nyx_opened_through = self
            self._open_files.add(opened)
            return opened


File: TypeAlias = io.FileIO | io.BufferedIOBase | io.TextIOBase
"""What the built-in `open` returns: a raw, buffered or text file."""


class OpenFiles:
    """The open files of one `Files`: counted with those of its parent, and ended with the lease.

    Used on the event loop's thread.
    """

    __slots__ = ("_chain", "_files", "_opening")

    def __init__(self, parent: "OpenFiles | None" = None) -> None:
        self._chain: tuple[OpenFiles, ...] = (self,) if parent is None else (self, *parent._chain)
        self._files: weakref.WeakSet[Any] = weakref.WeakSet()
        self._opening = 0

    @contextmanager
    def reserve(self, limits: FileLimits) -> Iterator[None]:
        """Counts one more file while it is being opened. Files that are narrowed from others count with those.

        Raises:
            LimitExceeded: `open_files` of the limits are open already.
        """
        root = self._chain[-1]
        if root._opening + len(root._files) >= limits.open_files:
            count = root._opening + sum(not file.closed for file in root._files)
            if count >= limits.open_files:
                detail = f"{count} files are open"
                raise LimitExceeded(plugin=limits.plugin, limit="open_files", allowed=limits.open_files, detail=detail)
        root._opening += 1
        try:
            yield
        finally:
            root._opening -= 1

    def add(self, opened: Any) -> None:
        """Takes an open aiofiles file, to be ended with the lease."""
        for files in self._chain:
            files._files.add(opened)

    def end(self, error: Revoked) -> None:
        """Closes every file: from now on each call on it raises a copy of `error`, except closing it once more.

        Closing flushes the buffers and waits for a running read, so the files are closed in threads.
        """
        for opened in list(self._files):
            file, opened._file = opened._file, _EndedFile(error)
            try:
                asyncio.get_running_loop().run_in_executor(None, _close, file)
            except RuntimeError:  # the loop or its executor is closed already, so blocking delays no other task
                _close(file)
        self._files.clear()


class _EndedFile:
    """Replaces the file inside an aiofiles object when the lease has ended."""

    closed = True

    def __init__(self, error: Revoked) -> None:
        self._error = error

    def __exit__(self, *exc_info: object) -> None:
        """Does nothing, so that leaving `async with` doesn't raise."""

    def close(self) -> None:
        """Does nothing: the file is closed."""

    def __getattr__(self, name: str) -> Any:
        raise copy(self._error)


def _close(file: File) -> None:
    with suppress(OSError, ValueError):  # after the end of the lease, a full disk can be reported to no caller
        file.close()


class _ArgumentsValid(Exception):
    """The built-in `open` accepted its arguments and called the opener."""


@lru_cache(maxsize=256)
def _open_mode(mode: str, buffering: int, has_encoding: bool, has_errors: bool, has_newline: bool) -> OpenMode:
    """Returns the mode of the descriptor, or raises what the built-in `open` raises for these arguments."""

    def opener(*_: object) -> int:
        raise _ArgumentsValid

    check: Callable[..., File] = partial(io.open, "file", mode, buffering, opener=opener)
    with as_host(), suppress(_ArgumentsValid):
        check(
            encoding="utf-8" if has_encoding else None,
            errors="strict" if has_errors else None,
            newline="" if has_newline else None,
        )
    kind = next(letter for letter in mode if letter in "rwax")
    return cast("OpenMode", f"{kind}+b" if "+" in mode else f"{kind}b")
