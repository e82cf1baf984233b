"""Files that a plugin holds open: counted, and ended with the lease. Knows nothing of paths and rules."""

import asyncio
import io
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any

from aiofiles.threadpool import wrap

from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import LimitExceeded, SandboxDenied

File = io.FileIO | io.BufferedIOBase | io.TextIOBase
"""What the built-in `open` returns: raw, buffered or text."""


class OpenFiles:
    """The open files of one capability. Used on the event loop's thread."""

    __slots__ = ("_above", "_files", "_lease", "_limit", "_opening")

    def __init__(self, lease: Lease, limit: Callable[[], int], above: "OpenFiles | None" = None) -> None:
        self._lease = lease
        self._above = above
        self._limit = limit
        self._opening = 0
        self._files: weakref.WeakSet[Any] = weakref.WeakSet()

    @contextmanager
    def room(self) -> Iterator[None]:
        """Keeps room for one more file while it is opened; the files of a narrowed capability count above.

        Raises:
            LimitExceeded: `open_files` of the grant are open already.
        """
        if self._above is not None:
            with self._above.room():
                yield
            return
        limit = self._limit()
        if self._opening + len(self._files) >= limit:
            held = self._opening + sum(not file.closed for file in self._files)
            if held >= limit:
                plugin, detail = self._lease.plugin, f"{held} files are open"
                raise LimitExceeded(plugin=plugin, limit="open_files", allowed=limit, detail=detail)
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def admit(self, file: File, loop: AbstractEventLoop | None, executor: Executor | None) -> Any:
        """Returns `file` in aiofiles' wrapper, from now on ended with the lease."""
        wrapped = wrap(file, loop=loop, executor=executor)
        own: OpenFiles | None = self
        while own is not None:
            own._files.add(wrapped)
            own = own._above
        return wrapped

    def end(self, error: Callable[[], SandboxDenied]) -> None:
        """Ends every file: what is called on it from now on raises `error()`, except closing it once more.

        The files are closed in threads, since closing flushes, and waits for a read under way.
        """
        for wrapped in list(self._files):
            file, wrapped._file = wrapped._file, _Ended(error)
            try:
                asyncio.get_running_loop().run_in_executor(None, _close, file)
            except RuntimeError:  # the host's loop, or its executor, is gone already: closing holds nobody up
                _close(file)
        self._files.clear()


class Handover:
    """Passes a file from the thread that opens it to a task that may be cancelled meanwhile: it never gets lost."""

    __slots__ = ("_abandoned", "_file", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = False
        self._file: File | None = None

    def give(self, file: File) -> File:
        """Called by the thread."""
        with self._lock:
            if self._abandoned:
                file.close()
            self._file = file
        return file

    def abandon(self) -> None:
        """Called by the task that takes no file any more."""
        with self._lock:
            self._abandoned = True
            # Nothing was written yet, so closing has nothing to flush and does not block.
            if self._file is not None:
                self._file.close()


class _Ended:
    """Stands in a wrapper for the file that was taken away."""

    closed = True

    def __init__(self, error: Callable[[], SandboxDenied]) -> None:
        self._error = error

    def __exit__(self, *exc_info: object) -> None:
        """Leaving `async with` is no use of the file."""

    def close(self) -> None:
        """It is closed."""

    def __getattr__(self, name: str) -> Any:
        raise self._error()


def _close(file: File) -> None:
    # A plugin whose lease has ended has nobody to tell that its last bytes found no room.
    with suppress(OSError, ValueError):
        file.close()
