"""Operations that read: open a file, list a directory, read a status.

Every path is relative to the root. Links inside the root are followed. Every function raises `EscapesRoot` for a path
that leads out of the root, and otherwise the kernel's error.
"""

import errno
import os
import stat

from nyx_core.beneath.errors import Judge, NotPlain
from nyx_core.beneath.resolved_path import ResolvedPath, judge_existing_part
from nyx_core.beneath.root import ENCODING, ERRORS, Root
from nyx_core.beneath.walk import O_PATH, Walk

# Don't wait for the other end of a FIFO, don't acquire a controlling terminal, don't let children inherit it.
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MAX_ATTEMPTS = 16
_TYPE_MASK = 0o170000  # S_IFMT of inode(7); stat.S_IFMT would be a call
_REGULAR = stat.S_IFREG
_SPECIAL = os.O_CREAT | O_PATH


def open_file(root: Root, path: str, flags: int, mode: int = 0o666, judge: Judge | None = None) -> int:
    """Opens the regular file `path` with the `flags` of open(2) and returns a descriptor.

    O_CLOEXEC, O_NOCTTY and O_NONBLOCK are added. O_NONBLOCK stays set: it has no effect on a regular file (open(2)).

    Raises:
        NotPlain: a FIFO, a socket or a device.
        IsADirectoryError: a directory.
        OSError: EAGAIN if, with a `judge`, the name kept appearing and disappearing.
    """
    flags |= _ALWAYS
    if judge is not None:
        return _open_judged(root, path, flags, mode, judge)
    try:
        if "/" in path and root.file_name is None and not flags & _SPECIAL:
            # What `Root.open` does with such a path, without the call.
            descriptor = root.opener(path.encode(ENCODING, ERRORS), flags, mode)
        else:
            descriptor = root.open(path, flags, mode)
    except OSError as error:
        # A socket, or a FIFO without a reader, opened for writing (open(2)); macOS: EOPNOTSUPP.
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):
            raise NotPlain(path) from error
        raise
    file_type = os.fstat(descriptor).st_mode & _TYPE_MASK
    if file_type == _REGULAR:
        return descriptor
    os.close(descriptor)
    if file_type == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotPlain(path)


def list_directory(root: Root, path: str, judge: Judge | None = None) -> list[str]:
    """The names in the directory `path`, unordered, without `.` and `..`."""
    descriptor = _open_existing(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, judge)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def status(root: Root, path: str, judge: Judge | None = None) -> os.stat_result:
    """stat(2) of `path`. Follows links. Doesn't open the file itself, so it touches no FIFO or device."""
    if not O_PATH:
        return status_by_walking(root, path, judge)
    descriptor = _open_existing(root, path, O_PATH | os.O_CLOEXEC, judge)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _open_existing(root: Root, path: str, flags: int, judge: Judge | None) -> int:
    try:
        descriptor = root.open(path, flags)
    except OSError:
        judge_existing_part(root, path, judge)
        raise
    try:
        root.ask(judge, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def status_by_walking(root: Root, path: str, judge: Judge | None = None) -> os.stat_result:
    """`status` for macOS, where opening needs read permission: walks to the directory, then fstatat(2)."""
    with Walk(root.descriptor, os.fsencode(root.inner_path(path))) as walk:
        try:
            end = walk.resolve()
            name = os.fsdecode(end.name)
            found = os.stat(name, dir_fd=end.directory, follow_symlinks=False)
        except OSError:
            judge_existing_part(root, path, judge)
            raise
        root.ask(judge, end.directory, None if name == "." else name)
        if end.must_be_directory and not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return found


def _open_judged(root: Root, path: str, flags: int, mode: int, judge: Judge) -> int:
    """Opens in steps, so that nothing changes before `judge` has seen the path.

    An existing file is opened without O_CREAT and O_TRUNC, judged, then truncated. A new file is created with O_EXCL in
    its directory, which is held open while the path is judged. The name may appear or disappear between the two steps.
    """
    create = bool(flags & os.O_CREAT)
    exclusive = create and bool(flags & os.O_EXCL)
    for _ in range(_MAX_ATTEMPTS):
        if not exclusive:
            try:
                return _open_existing_file(root, path, flags, judge)
            except OSError as error:
                if not create or error.errno != errno.ENOENT:
                    judge_existing_part(root, path, judge)
                    raise
        with ResolvedPath.of(root, path, judge, follow=not exclusive) as resolved:
            try:
                new_flags = flags | os.O_EXCL | os.O_NOFOLLOW
                return os.open(resolved.name, new_flags, mode, dir_fd=resolved.directory)
            except FileExistsError:
                if exclusive:
                    raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def _open_existing_file(root: Root, path: str, flags: int, judge: Judge) -> int:
    if flags & os.O_CREAT:
        root.require_name(root.inner_path(path))
    descriptor = open_file(root, path, flags & ~(os.O_CREAT | os.O_TRUNC | os.O_EXCL))
    try:
        root.ask(judge, descriptor)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
