"""A log read while it is written: what is there, then, call by call, what came; across rotations too. Only reads."""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

from nyx_stream.audit.reading import Line, whole_lines
from nyx_stream.audit.segments import sealed_segments


class Follower:
    """Reads the log at `path` from its first segment on. A context manager.

    Raises (entering it, and `lines`):
        OSError: a file cannot be read; there is no log at `path`.
        UnreadableLine: a whole line is no record.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = path
        self._file: BinaryIO | None = None
        self._number = 0  # of the segment that is read
        self._read = 0  # lines of it

    def __enter__(self) -> Self:
        self._go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[Line]:
        """Yields each whole line that was not yielded before."""
        while self._file is not None:
            rotated = not self._is_last()  # asked first: after that nothing is appended to this file
            for line in whole_lines(self._name, self._file, self._read):
                self._read += 1
                if line.record.kind == "segment":
                    self._number = line.record.values["number"]
                yield line
            if not rotated or not self._go_on():
                return

    def _is_last(self) -> bool:
        try:
            return self._file is None or os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _go_on(self) -> bool:
        """Opens the segment after the present one; returns whether there is one."""
        try:
            last: BinaryIO | None = open(self._path, "rb")  # noqa: SIM115  # kept until it is read
        except FileNotFoundError:
            last = None
        # Looked at after the last one was opened: if that is rotated now, it is found here.
        for number, name in sealed_segments(self._path):
            if number > self._number:
                if last is not None:
                    last.close()
                self._take(name, open(name, "rb"))  # noqa: SIM115
                return True
        if last is None and self._file is None:
            raise FileNotFoundError(2, os.strerror(2), self._path)
        if last is not None:
            self._take(self._path, last)
        return last is not None

    def _take(self, name: str, file: BinaryIO) -> None:
        if self._file is not None:
            self._file.close()
        self._name, self._file, self._read = name, file, 0
