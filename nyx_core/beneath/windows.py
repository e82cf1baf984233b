r"""Opening below a directory on Windows, which has no descriptor-relative open: open, then compare where it led to.

The text is refused first where Win32 would read more into it than a path (`text.refuse_reason`), and is then opened
verbatim (`\\?\`), so that Win32 parses nothing. `..` is taken away lexically, as Win32 does itself. Then the final
path of the handle must lie below the final path of the root, which is held open. What changes a name first opens
the directory of the name in this way and holds it: nobody can rename a directory that is open without
FILE_SHARE_DELETE, nor one above it. A file is never cut or created before the comparison.

The operations are those of `opening` and `changing`, with the same meaning.
"""

import contextlib
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from nyx_core.beneath.errors import EscapesRoot, NotPlain
from nyx_core.beneath.judge import Judge
from nyx_core.beneath.text import components, fold, refuse_reason
from nyx_core.beneath.win32_files import (
    CREATE_NEW,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES,
    GENERIC_READ,
    GENERIC_WRITE,
    OPEN_EXISTING,
    Kernel32,
    load_kernel32,
)

VERBATIM = "\\\\?\\"


@dataclass(frozen=True, slots=True)
class Root:
    r"""A directory held open by `handle`; `path` is its final path, verbatim. Of a granted file, `only` is the name."""

    kernel: Kernel32
    handle: int
    path: str
    only: str | None = None

    def close(self) -> None:
        """Closes the handle. Descriptors handed out before stay open."""
        self.kernel.close(self.handle)


def open_root(path: str, kernel: Kernel32 | None = None) -> Root:
    """Opens the directory or file `path` as a root; links in `path` are followed, now and never again."""
    kernel = kernel or load_kernel32()
    handle = kernel.open(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    final = kernel.final_path(handle)
    if os.path.isdir(final):
        return Root(kernel, handle, final)
    kernel.close(handle)
    directory, name = final.rsplit("\\", 1)
    held = kernel.open(directory + "\\", FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    return Root(kernel, held, kernel.final_path(held), name)


def resolve(path: str, only: str | None = None) -> list[str]:
    """The names from the root to `path`, lexically.

    Raises:
        EscapesRoot: the path is absolute, or goes above the root.
        OSError: EINVAL, the text has a meaning of its own to Win32; ENOTDIR, it goes below a granted file.
    """
    if only is not None:
        if path not in ("", "."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return [only]
    if path.replace("/", "\\").startswith("\\") or path[1:2] == ":":
        raise EscapesRoot(path)
    reason = refuse_reason(path, "windows")
    if reason is not None:
        raise OSError(errno.ENOENT if not path else errno.EINVAL, reason, path)
    names: list[str] = []
    for name in components(path, "windows"):
        if name != "..":
            names.append(name)
        elif names:
            names.pop()
        else:
            raise EscapesRoot(path)
    return names


def below(root: str, final: str) -> str:
    """The part of a final path below the root's final path, `""` for the root itself.

    Raises:
        EscapesRoot: it is not below.
    """
    inside = root.rstrip("\\") + "\\"
    if fold(final.rstrip("\\") + "\\", "windows") == fold(inside, "windows"):
        return ""
    if not fold(final, "windows").startswith(fold(inside, "windows")):
        raise EscapesRoot(final)
    return final[len(inside) :]


def open_file(root: Root, path: str, flags: int, mode: int = 0o666, judge: Judge | None = None) -> int:
    """Opens the regular file `path` with the flags of `os.open`; `mode` says only whether it may be written."""
    access = GENERIC_WRITE | GENERIC_READ if flags & (os.O_RDWR | os.O_WRONLY) else GENERIC_READ
    create, exclusive = bool(flags & os.O_CREAT), bool(flags & os.O_CREAT and flags & os.O_EXCL)
    if not exclusive:
        try:
            return _as_file(root, _reach(root, path, access, judge), path, flags)
        except FileNotFoundError:
            if not create:
                raise
    with _directory_of(root, path, judge) as place:
        handle = root.kernel.open(place, access, CREATE_NEW, FILE_FLAG_OPEN_REPARSE_POINT)
        descriptor = _as_file(root, handle, path, flags)
        if not mode & 0o200:
            os.chmod(place, stat.S_IREAD)
        return descriptor


def list_directory(root: Root, path: str, judge: Judge | None = None) -> list[str]:
    """The names in the directory `path`, in no order."""
    with _held(root, path, judge) as final:
        return os.listdir(final)


def status(root: Root, path: str, judge: Judge | None = None) -> os.stat_result:
    """The status of `path`, links followed."""
    with _held(root, path, judge) as final:
        return os.stat(final)


def make_directory(root: Root, path: str, mode: int = 0o777, judge: Judge | None = None) -> None:
    r"""Makes a directory. `name\` is `name`."""
    with _directory_of(root, path.rstrip("/\\") or path, judge) as place:
        os.mkdir(place, mode)


def rename(
    source: tuple[Root, str], target: tuple[Root, str], judges: tuple[Judge | None, Judge | None] = (None, None)
) -> None:
    """Gives a name another place, replacing a file that stands there."""
    with _directory_of(*source, judges[0]) as old, _directory_of(*target, judges[1]) as new:
        os.replace(old, new)


def remove(root: Root, path: str, judge: Judge | None = None) -> None:
    """Removes a file, a link or an empty directory."""
    with _directory_of(root, path, judge) as place:
        if _is_directory(place):
            os.rmdir(place)
        else:
            os.unlink(place)


def remove_tree(root: Root, path: str, judge: Judge | None = None) -> None:
    """Removes `path` and everything below it; of links and junctions, the links."""
    with _directory_of(root, path, judge) as place:
        if _is_directory(place):
            shutil.rmtree(place)
        else:
            os.unlink(place)


def replace_file(root: Root, path: str, content: bytes, judge: Judge | None = None) -> None:
    """Writes a whole file atomically. A link at `path` is not followed but refused: it has no place of its own."""
    with _directory_of(root, path, judge) as place:
        if os.path.lexists(place) and not stat.S_ISREG(os.lstat(place).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        temporary = os.path.join(os.path.dirname(place), f".nyx-{os.urandom(8).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _reach(root: Root, path: str, access: int, judge: Judge | None) -> int:
    """Opens what is there, compares where it led to, and has that judged. Returns a handle."""
    kernel, names = root.kernel, resolve(path, root.only)
    place = "\\".join([root.path.rstrip("\\"), *names])
    handle = kernel.open(place, access, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    try:
        final = kernel.final_path(handle)
        inside = below(root.path, final)
        if not kernel.is_disk(handle):
            raise NotPlain(path)
        if judge is not None:
            judge(inside, final.removeprefix(VERBATIM))
    except BaseException:
        kernel.close(handle)
        raise
    return handle


@contextlib.contextmanager
def _held(root: Root, path: str, judge: Judge | None) -> Iterator[str]:
    """The final path of `path`, which cannot be renamed away inside the `with` block."""
    handle = _reach(root, path, FILE_READ_ATTRIBUTES, judge)
    try:
        yield root.kernel.final_path(handle)
    finally:
        root.kernel.close(handle)


@contextlib.contextmanager
def _directory_of(root: Root, path: str, judge: Judge | None) -> Iterator[str]:
    """The place of a name: the final path of its directory, which is held, and the name."""
    names = resolve(path, root.only)
    if (root.only is None and components("x\\" + path, "windows")[-1] == "..") or path[-1:] in ("/", "\\") or not names:
        raise IsADirectoryError(errno.EISDIR, "the path ends in no name that could be changed", path)
    *above, name = names
    parent = Root(root.kernel, root.handle, root.path)
    handle = _reach(parent, "\\".join(above) or ".", FILE_READ_ATTRIBUTES, None)
    try:
        final = root.kernel.final_path(handle)
        place = final.rstrip("\\") + "\\" + name
        if judge is not None:
            judge(below(root.path, place), place.removeprefix(VERBATIM))
        yield place
    finally:
        root.kernel.close(handle)


def _as_file(root: Root, handle: int, path: str, flags: int) -> int:
    """A descriptor in place of the handle, cut if that was asked for.

    Raises:
        IsADirectoryError: it is a directory.
    """
    try:
        descriptor = descriptor_of(handle, flags)
    except BaseException:
        root.kernel.close(handle)
        raise
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def descriptor_of(handle: int, flags: int) -> int:
    """A descriptor that owns the handle from now on.

    Raises:
        OSError: this is not Windows.
    """
    if sys.platform == "win32":
        import msvcrt

        kept = flags & (os.O_APPEND | os.O_RDWR | os.O_WRONLY | os.O_BINARY)
        return msvcrt.open_osfhandle(handle, kept | os.O_NOINHERIT)
    else:  # noqa: RET505 - mypy reads the two halves for two platforms
        raise OSError(errno.ENOSYS, "descriptors of handles are a matter of Windows")


def _is_directory(place: str) -> bool:
    return stat.S_ISDIR(os.lstat(place).st_mode)
