"""Operations that change names: make, rename, remove, replace. Knows no policy.

Each acts on a name in a directory that is held open, so on a link itself and never on its target. A path that
ends in `.`, `..` or `/`, and the root itself, is no such name and is refused (`make_directory` takes
`name/`). Every function raises `EscapesRoot` for a path that leads out and else what the kernel gives.
"""

import contextlib
import os
import stat

from nyx_core.beneath.judge import Judge
from nyx_core.beneath.place import Place
from nyx_core.beneath.root import Root

# Pieces of one write: Linux transfers at most 0x7ffff000 bytes in one call (write(2)).
_PIECE = 0x7FFFF000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def make_directory(root: Root, path: str, mode: int = 0o777, judge: Judge | None = None) -> None:
    """mkdir(2). `name/` is `name`."""
    name = path.rstrip("/")
    if name != path and name:
        root.refuse_escape(path)
    with Place.of(root, name or path, judge) as place:
        os.mkdir(place.name, mode, dir_fd=place.directory)


def rename(
    source: tuple[Root, str],
    target: tuple[Root, str],
    judges: tuple[Judge | None, Judge | None] = (None, None),
) -> None:
    """rename(2), between two roots or in one; what stands at the target is replaced as rename(2) does.

    Raises:
        OSError: plain EXDEV if the two lie on different mounts.
    """
    with Place.of(*source, judges[0]) as old, Place.of(*target, judges[1]) as new:
        os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)


def remove(root: Root, path: str, judge: Judge | None = None) -> None:
    """unlink(2), or rmdir(2) for a directory, which must be empty."""
    with Place.of(root, path, judge) as place:
        if _is_directory(place):
            os.rmdir(place.name, dir_fd=place.directory)
        else:
            os.unlink(place.name, dir_fd=place.directory)


def remove_tree(root: Root, path: str, judge: Judge | None = None) -> None:
    """Removes `path` and everything below it; of links, the links. Not atomic."""
    with Place.of(root, path, judge) as place:
        if _is_directory(place):
            # Here, not above: shutil brings its archive formats along, 5 ms of every start.
            import shutil

            # Goes down by descriptors and O_NOFOLLOW wherever os.open takes dir_fd (shutil documentation).
            shutil.rmtree(place.name, dir_fd=place.directory)
        else:
            os.unlink(place.name, dir_fd=place.directory)


def replace_file(root: Root, path: str, content: bytes, judge: Judge | None = None) -> None:
    """Writes a whole file atomically: readers see the old content or the new.

    A link at `path` is followed, and the file it leads to is replaced. An existing file keeps its permission
    bits, but neither owner nor further hard links. Not flushed to the disk.

    Raises:
        NotPlain, IsADirectoryError: what stands there is no regular file.
    """
    with Place.of(root, path, judge, follow=True) as place:
        before = place.replaceable()
        temporary = f".nyx-{os.urandom(8).hex()}"
        descriptor = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
            dir_fd=place.directory,
        )
        try:
            try:
                if before is not None:
                    os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o777)
                _write(descriptor, content)
            finally:
                os.close(descriptor)
            os.rename(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=place.directory)
            raise


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view[:_PIECE]) :]


def _is_directory(place: Place) -> bool:
    status = place.status()
    return status is not None and stat.S_ISDIR(status.st_mode)
