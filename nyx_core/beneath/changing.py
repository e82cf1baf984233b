"""Operations that change names: make, rename, remove, replace.

Each acts on a name in a directory that is held open, so on a link itself and never on its target. A path that ends in
`.`, `..` or `/`, and the root itself, is refused (`make_directory` accepts `name/`). Every function raises
`EscapesRoot` for a path that leads out of the root, and otherwise the kernel's error.
"""

import contextlib
import os
import stat

from nyx_core.beneath.errors import Judge
from nyx_core.beneath.resolved_path import ResolvedPath
from nyx_core.beneath.root import Root

_MAX_WRITE = 0x7FFFF000  # bytes that Linux transfers in one call (write(2))
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def make_directory(root: Root, path: str, mode: int = 0o777, judge: Judge | None = None) -> None:
    """mkdir(2). `name/` means `name`."""
    name = path.rstrip("/")
    if name != path and name:
        root.require_below(path)
    with ResolvedPath.of(root, name or path, judge) as resolved:
        os.mkdir(resolved.name, mode, dir_fd=resolved.directory)


def rename(
    source: tuple[Root, str],
    target: tuple[Root, str],
    judges: tuple[Judge | None, Judge | None] = (None, None),
) -> None:
    """rename(2), within a root or between two. Replaces an existing target as rename(2) does.

    Raises:
        OSError: plain EXDEV if the two are on different mounts.
    """
    with ResolvedPath.of(*source, judges[0]) as old, ResolvedPath.of(*target, judges[1]) as new:
        os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)


def remove(root: Root, path: str, judge: Judge | None = None) -> None:
    """unlink(2), or rmdir(2) for a directory, which must be empty."""
    with ResolvedPath.of(root, path, judge) as resolved:
        if resolved.has_type(stat.S_IFDIR):
            os.rmdir(resolved.name, dir_fd=resolved.directory)
        else:
            os.unlink(resolved.name, dir_fd=resolved.directory)


def remove_tree(root: Root, path: str, judge: Judge | None = None) -> None:
    """Removes `path` and everything below it. Removes links, not their targets. Not atomic."""
    with ResolvedPath.of(root, path, judge) as resolved:
        if resolved.has_type(stat.S_IFDIR):
            # Imported here: shutil loads its archive formats, 5 ms of every start.
            import shutil

            # It descends by descriptors and O_NOFOLLOW if os.open takes dir_fd (shutil documentation).
            shutil.rmtree(resolved.name, dir_fd=resolved.directory)
        else:
            os.unlink(resolved.name, dir_fd=resolved.directory)


def replace_file(root: Root, path: str, content: bytes, judge: Judge | None = None) -> None:
    """Writes a file atomically: readers see the old content or the new.

    Follows a link at `path` and replaces the file it leads to. An existing file keeps its permission bits, but not its
    owner or further hard links. Doesn't flush to the disk.

    Raises:
        NotPlain, IsADirectoryError: `path` exists and isn't a regular file.
    """
    with ResolvedPath.of(root, path, judge, follow=True) as resolved:
        before = resolved.replaceable()
        temporary = f".nyx-{os.urandom(8).hex()}"
        descriptor = os.open(temporary, _NEW_FILE, dir_fd=resolved.directory)
        try:
            try:
                if before is not None:
                    os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o777)
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view[:_MAX_WRITE]) :]
            finally:
                os.close(descriptor)
            os.rename(temporary, resolved.name, src_dir_fd=resolved.directory, dst_dir_fd=resolved.directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=resolved.directory)
            raise
