"""A place: a directory below the root that is held open, and one name in it. What changes names works on
it."""

import errno
import os
import stat
from dataclasses import dataclass
from typing import Self

from nyx_core.beneath.errors import NotPlain
from nyx_core.beneath.judge import Judge
from nyx_core.beneath.root import Root
from nyx_core.beneath.walk import O_WALK, Walk


@dataclass(frozen=True, slots=True)
class Place:
    """`name` in `directory` (a descriptor that the place owns). A context manager."""

    root: Root
    directory: int
    name: str

    @classmethod
    def of(cls, root: Root, path: str, judge: Judge | None = None, *, follow: bool = False) -> Self:
        """The place that `path` names, judged; with `follow`, a link at its end is resolved to where it leads.

        Raises:
            EscapesRoot: the path, or the link, leads out of the root.
            IsADirectoryError: the path ends in `.`, `..` or `/`.
            OSError: what open(2) gives for the directory.
        """
        try:
            place = cls._find(root, path, follow)
        except OSError:
            judge_way(root, path, judge)
            raise
        try:
            root.judge(place.directory, judge, place.name)
        except BaseException:
            place.close()
            raise
        return place

    @classmethod
    def _find(cls, root: Root, path: str, follow: bool) -> Self:
        if root.only is not None:
            os.close(root.reach(path, O_WALK))
            return cls(root, os.dup(root.descriptor), root.only)
        root.refuse_unnamed(path)
        parent, _, name = path.rpartition("/")
        # "/name" cannot come from below a root; the opener says so.
        parent = parent or ("/" if path.startswith("/") else ".")
        place = cls(root, root.reach(parent, O_WALK | os.O_DIRECTORY), name)
        if not follow or not place.is_link():
            return place
        place.close()
        return cls._behind_link(root, path)

    @classmethod
    def _behind_link(cls, root: Root, path: str) -> Self:
        with Walk(root.descriptor, os.fsencode(path)) as walk:
            spot = walk.parent()
            while walk.follow(spot):
                spot = walk.parent()
            if spot.must_be_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            return cls(root, os.dup(spot.directory), os.fsdecode(spot.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the directory."""
        os.close(self.directory)

    def is_link(self) -> bool:
        """Whether a symbolic link stands here now."""
        status = self.status()
        return status is not None and stat.S_ISLNK(status.st_mode)

    def status(self) -> os.stat_result | None:
        """lstat(2) of what stands here, or `None` if nothing does."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def replaceable(self) -> os.stat_result | None:
        """The status of the regular file that stands here, `None` if nothing does.

        Raises:
            IsADirectoryError, NotPlain: something else stands here.
        """
        status = self.status()
        if status is None or stat.S_ISREG(status.st_mode):
            return status
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.name)
        raise NotPlain(self.name)


def judge_way(root: Root, path: str, judge: Judge | None) -> None:
    """Has the judge see how far `path` got before it failed: "not found" would tell what a denied place holds."""
    way = path.rstrip("/") if judge is not None else ""
    while way:
        try:
            place = Place.of(root, way, follow=True)
        except OSError:
            way = way.rpartition("/")[0].rstrip("/")
            continue
        with place:
            root.judge(place.directory, judge, place.name)
        break
