"""What a plugin knows as `self.files`, at every level. Knows neither guard nor broker: a level says how it is done."""

import abc
import errno
import os
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Self

from aiofiles.base import AiofilesContextManager

from nyx_stream.capabilities.files.open_arguments import Layers, layers_of
from nyx_stream.guard import path_text
from nyx_stream.policy.limits import Term, parse_terms

Path = str | os.PathLike[str]


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


class Files(abc.ABC):
    """Files below the granted prefixes.

    A relative path is relative to `$DATA`. A path is read once; links inside a prefix are followed, physically.

    Every operation raises:
        FilesystemDenied: no rule grants it, a rule denies it, or it leads out of what is granted. Audited.
        Revoked: the lease has ended.
        OSError: what the system says about a path that is granted: FileNotFoundError, ELOOP, …
    """

    __slots__ = ()

    def narrow(self, *prefixes: Path, mode: str = "r", **terms: object) -> Self:
        """The files for less, to be handed on: `self.files.narrow("reports/", mode="r", ttl="60s")`.

        It does what both its prefixes and this capability allow, now and later, and ends with this one, by `close`, or
        when its terms are over (see `LeaseTerms`); what it spends is spent here too. It can be narrowed further. A
        prefix that is itself a link hands nothing on: what it leads to has another path.

        Args:
            prefixes: one or more, as every path of this capability.
            mode: `"r"` or `"rw"`.
            terms: `ttl`, `opens`.

        Raises:
            FilesystemDenied: a prefix is not granted here in that mode; audited.
            ValueError: a mode or a term is wrong, or there is no prefix.
            LimitExceeded: level `process` only: more is narrowed than the host keeps for one plugin.
        """
        if mode not in ("r", "rw") or not prefixes:
            raise ValueError('files are narrowed to one prefix or more, with the mode "r" or "rw"')
        limits = parse_terms("files", terms)
        return self._narrowed([path_text(prefix) for prefix in prefixes], mode, limits)

    @abc.abstractmethod
    def close(self) -> None:
        """Ends every open file and refuses every further operation. Called on the event loop's thread."""

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

        Takes what `aiofiles.open` takes, except an opener, and gives the same objects.

        Raises:
            ValueError, TypeError, LookupError: wrong arguments, as the built-in `open`; nothing was opened.
            LimitExceeded: `open_files` of the grant are open.
        """
        layers = layers_of(mode, buffering, encoding, errors, newline, closefd)
        return AiofilesContextManager(self._open(file, mode, layers, loop, executor))

    @abc.abstractmethod
    async def read_bytes(self, path: Path) -> bytes:
        """The content of a file. Raises `LimitExceeded` if it has more than `read_bytes` of the grant."""

    async def read_text(self, path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a file as text, line ends as they are."""
        return (await self.read_bytes(path)).decode(encoding, errors)

    @abc.abstractmethod
    async def write_bytes(self, path: Path, data: bytes | bytearray | memoryview) -> int:
        """Replaces a file atomically, or creates it, and returns its size: a reader sees the old or the new content."""

    async def write_text(self, path: Path, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Replaces a file by text, as `write_bytes` does, and returns the number of characters."""
        await self.write_bytes(path, data.encode(encoding, errors))
        return len(data)

    @abc.abstractmethod
    async def stat(self, path: Path) -> os.stat_result:
        """The status of what the path leads to."""

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

    @abc.abstractmethod
    async def mkdir(self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a directory; the arguments are those of `pathlib.Path.mkdir`."""

    @abc.abstractmethod
    async def rename(self, source: Path, target: Path) -> None:
        """Gives a file, link or directory another name, and replaces what stood there, as rename(2) does."""

    @abc.abstractmethod
    async def remove(self, path: Path, *, tree: bool = False) -> None:
        """Removes a file, a link or an empty directory; with `tree` a directory and all that is in it."""

    @abc.abstractmethod
    def _narrowed(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> Self:
        """Narrows to prefixes and terms that were read already."""

    @abc.abstractmethod
    async def _open(
        self, file: Path, mode: str, layers: Layers, loop: AbstractEventLoop | None, executor: Executor | None
    ) -> Any:
        """Opens a file and returns it in aiofiles' wrapper."""

    @abc.abstractmethod
    async def _list(self, path: Path) -> list[str]:
        """Reads a directory."""
