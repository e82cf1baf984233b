"""A path resolved to a directory that is held open and a name in it, on which operations act."""

import errno
import os
import stat
from dataclasses import dataclass
from typing import Self

from nyx_core.beneath.errors import Judge, NotPlain
from nyx_core.beneath.root import Root
from nyx_core.beneath.walk import O_WALK, Walk


@dataclass(frozen=True, slots=True)
class ResolvedPath:
    """`name` in `directory`, a descriptor that this object owns. A context manager that closes it."""

    root: Root
    directory: int
    name: str

    @classmethod
    def of(cls, root: Root, path: str, judge: Judge | None = None, *, follow: bool = False) -> Self:
        """Resolves `path` and calls `judge`. With `follow`, a link at the end is resolved to its target.

        Raises:
            EscapesRoot: the path, or the link, leads out of the root.
            IsADirectoryError: the path ends in `.`, `..` or `/`.
            OSError: what open(2) gives for the directory.
        """
        try:
            resolved = cls._resolve(root, path, follow)
        except OSError:
            judge_existing_part(root, path, judge)
            raise
        try:
            root.ask(judge, resolved.directory, resolved.name)
        except BaseException:
            os.close(resolved.directory)
            raise
        return resolved

    @classmethod
    def _resolve(cls, root: Root, path: str, follow: bool) -> Self:
        if root.file_name is not None:
            os.close(root.open(path, O_WALK))
            return cls(root, os.dup(root.descriptor), root.file_name)
        root.require_name(path)
        parent, _, name = path.rpartition("/")
        # "/name" can't be below a root; the opener says so.
        parent = parent or ("/" if path.startswith("/") else ".")
        resolved = cls(root, root.open(parent, O_WALK | os.O_DIRECTORY), name)
        if not follow or not resolved.has_type(stat.S_IFLNK):
            return resolved
        os.close(resolved.directory)
        with Walk(root.descriptor, os.fsencode(path)) as walk:
            end = walk.resolve()
            if end.must_be_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            return cls(root, os.dup(end.directory), os.fsdecode(end.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self.directory)

    def has_type(self, file_type: int) -> bool:
        """Whether the name exists and has this type, an `S_IF...` constant."""
        status = self.status()
        return status is not None and stat.S_IFMT(status.st_mode) == file_type

    def status(self) -> os.stat_result | None:
        """lstat(2) of the name, or `None` if it doesn't exist."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def replaceable(self) -> os.stat_result | None:
        """The status of the regular file of this name, or `None` if it doesn't exist.

        Raises:
            IsADirectoryError, NotPlain: the name is something else.
        """
        status = self.status()
        if status is None or stat.S_ISREG(status.st_mode):
            return status
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.name)
        raise NotPlain(self.name)


def judge_existing_part(root: Root, path: str, judge: Judge | None) -> None:
    """Calls `judge` for the longest part of `path` that exists, after the rest has failed.

    Without it, "not found" would reveal what a denied directory contains.
    """
    part = path.rstrip("/") if judge is not None else ""
    while part:
        try:
            resolved = ResolvedPath.of(root, part, follow=True)
        except OSError:
            part = part.rpartition("/")[0].rstrip("/")
            continue
        with resolved:
            root.ask(judge, resolved.directory, resolved.name)
        break
