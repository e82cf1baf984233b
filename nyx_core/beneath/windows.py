r"""Operations below a directory on Windows, which can't open relative to a handle: open, then compare the final path.

Theory of operation: `text.refuse_reason` first refuses paths that Win32 would interpret. The rest is opened verbatim
(`\\?\`), so that Win32 parses nothing, with `..` removed lexically, as Win32 does. Then the final path of the handle
must be below the final path of the root, which is held open. An operation that changes a name first opens the name's
directory in this way and holds it: a directory that is open without FILE_SHARE_DELETE can't be renamed, nor can its
parents. A file is never truncated or created before the comparison.

The functions have the names and the meaning of those in `opening` and `changing`.
"""

import contextlib
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from nyx_core.beneath.errors import EscapesRoot, Judge, NotPlain
from nyx_core.beneath.text import components, fold, refuse_reason
from nyx_core.windows.kernel32 import (
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
class WindowsRoot:
    r"""A directory held open by `handle`; `path` is its verbatim final path. `file_name` as in `Root`."""

    kernel: Kernel32
    handle: int
    path: str
    file_name: str | None = None

    def close(self) -> None:
        """Closes the handle. Descriptors returned earlier stay open."""
        self.kernel.close(self.handle)


def open_root(path: str, kernel: Kernel32 | None = None) -> WindowsRoot:
    """Opens the directory or file `path` as a root. Links in `path` are followed now, and not again later."""
    kernel = kernel or load_kernel32()
    handle = kernel.open_file(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    final = kernel.final_path(handle)
    if os.path.isdir(final):
        return WindowsRoot(kernel, handle, final)
    kernel.close(handle)
    directory, name = final.rsplit("\\", 1)
    held = kernel.open_file(directory + "\\", FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    return WindowsRoot(kernel, held, kernel.final_path(held), name)


def resolve(path: str, file_name: str | None = None) -> list[str]:
    """The names from the root to `path`, lexically.

    Raises:
        EscapesRoot: the path is absolute, or goes above the root.
        OSError: EINVAL, Win32 would interpret the text; ENOTDIR, the path goes below a granted file.
    """
    if file_name is not None:
        if path not in ("", "."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return [file_name]
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


def open_file(root: WindowsRoot, path: str, flags: int, mode: int = 0o666, judge: Judge | None = None) -> int:
    """Opens the regular file `path` with the flags of `os.open`. Of `mode`, only the owner's write bit counts."""
    access = GENERIC_WRITE | GENERIC_READ if flags & (os.O_RDWR | os.O_WRONLY) else GENERIC_READ
    create, exclusive = bool(flags & os.O_CREAT), bool(flags & os.O_CREAT and flags & os.O_EXCL)
    if not exclusive:
        try:
            return _as_file(root, _open_existing(root, path, access, judge), path, flags)
        except FileNotFoundError:
            if not create:
                raise
    with _held_parent(root, path, judge) as target:
        handle = root.kernel.open_file(target, access, CREATE_NEW, FILE_FLAG_OPEN_REPARSE_POINT)
        descriptor = _as_file(root, handle, path, flags)
        if not mode & 0o200:
            os.chmod(target, stat.S_IREAD)
        return descriptor


def list_directory(root: WindowsRoot, path: str, judge: Judge | None = None) -> list[str]:
    """The names in the directory `path`, unordered."""
    with _held_path(root, path, judge) as final:
        return os.listdir(final)


def status(root: WindowsRoot, path: str, judge: Judge | None = None) -> os.stat_result:
    """The status of `path`. Follows links."""
    with _held_path(root, path, judge) as final:
        return os.stat(final)


def make_directory(root: WindowsRoot, path: str, mode: int = 0o777, judge: Judge | None = None) -> None:
    r"""Makes a directory. `name\` means `name`."""
    with _held_parent(root, path.rstrip("/\\") or path, judge) as target:
        os.mkdir(target, mode)


def rename(
    source: tuple[WindowsRoot, str],
    target: tuple[WindowsRoot, str],
    judges: tuple[Judge | None, Judge | None] = (None, None),
) -> None:
    """Renames, and replaces an existing file at the target."""
    with _held_parent(*source, judges[0]) as old, _held_parent(*target, judges[1]) as new:
        os.replace(old, new)


def remove(root: WindowsRoot, path: str, judge: Judge | None = None) -> None:
    """Removes a file, a link or an empty directory."""
    with _held_parent(root, path, judge) as target:
        if _is_directory(target):
            os.rmdir(target)
        else:
            os.unlink(target)


def remove_tree(root: WindowsRoot, path: str, judge: Judge | None = None) -> None:
    """Removes `path` and everything below it. Removes links and junctions, not their targets."""
    with _held_parent(root, path, judge) as target:
        if _is_directory(target):
            shutil.rmtree(target)
        else:
            os.unlink(target)


def replace_file(root: WindowsRoot, path: str, content: bytes, judge: Judge | None = None) -> None:
    """Writes a file atomically. A link at `path` is refused."""
    with _held_parent(root, path, judge) as target:
        if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        temporary = os.path.join(os.path.dirname(target), f".nyx-{os.urandom(8).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _open_existing(root: WindowsRoot, path: str, access: int, judge: Judge | None) -> int:
    """Opens an existing `path`, compares its final path with the root, and calls `judge`. Returns a handle."""
    kernel, names = root.kernel, resolve(path, root.file_name)
    target = "\\".join([root.path.rstrip("\\"), *names])
    handle = kernel.open_file(target, access, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    try:
        final = kernel.final_path(handle)
        inside = below(root.path, final)
        if not kernel.is_disk_file(handle):
            raise NotPlain(path)
        if judge is not None:
            judge(inside, final.removeprefix(VERBATIM))
    except BaseException:
        kernel.close(handle)
        raise
    return handle


@contextlib.contextmanager
def _held_path(root: WindowsRoot, path: str, judge: Judge | None) -> Iterator[str]:
    """The final path of `path`, which can't be renamed inside the `with` block."""
    handle = _open_existing(root, path, FILE_READ_ATTRIBUTES, judge)
    try:
        yield root.kernel.final_path(handle)
    finally:
        root.kernel.close(handle)


@contextlib.contextmanager
def _held_parent(root: WindowsRoot, path: str, judge: Judge | None) -> Iterator[str]:
    """The final path of the directory of `path`, which is held open, joined with the name."""
    names = resolve(path, root.file_name)
    if (
        (root.file_name is None and components("x\\" + path, "windows")[-1] == "..")
        or path[-1:] in ("/", "\\")
        or not names
    ):
        raise IsADirectoryError(errno.EISDIR, "the path does not end in a name", path)
    *above, name = names
    parent = WindowsRoot(root.kernel, root.handle, root.path)
    handle = _open_existing(parent, "\\".join(above) or ".", FILE_READ_ATTRIBUTES, None)
    try:
        final = root.kernel.final_path(handle)
        target = final.rstrip("\\") + "\\" + name
        if judge is not None:
            judge(below(root.path, target), target.removeprefix(VERBATIM))
        yield target
    finally:
        root.kernel.close(handle)


def _as_file(root: WindowsRoot, handle: int, path: str, flags: int) -> int:
    """Turns the handle into a descriptor, and truncates the file if `flags` say so.

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
    """A descriptor that owns the handle.

    Raises:
        OSError: this is not Windows.
    """
    if sys.platform == "win32":
        import msvcrt

        kept = flags & (os.O_APPEND | os.O_RDWR | os.O_WRONLY | os.O_BINARY)
        return msvcrt.open_osfhandle(handle, kept | os.O_NOINHERIT)
    else:  # noqa: RET505 - mypy reads the two halves for two platforms
        raise OSError(errno.ENOSYS, "only Windows has handles")


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)
