"""Operations that look: open a file, list a directory, read a status. Knows no policy.

Every path is relative to the root. Links inside are followed, physically. Every function raises `EscapesRoot`
for a path that leads out and else what the kernel gives.
"""

import errno
import os
import stat

from nyx_core.beneath.errors import NotPlain
from nyx_core.beneath.judge import Judge
from nyx_core.beneath.place import Place, judge_way
from nyx_core.beneath.root import ENCODING, ERRORS, Root
from nyx_core.beneath.walk import O_PATH, Walk

# Never a wait for a FIFO's other end, never a controlling terminal, never inherited by a child.
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TRIES = 16
_KIND = 0o170000  # S_IFMT of inode(7); stat.S_IFMT is a call
_REGULAR = stat.S_IFREG
_SPECIAL = os.O_CREAT | O_PATH


def open_file(root: Root, path: str, flags: int, mode: int = 0o666, judge: Judge | None = None) -> int:
    """Opens the regular file `path` with the `flags` of open(2) and returns a descriptor.

    O_CLOEXEC, O_NOCTTY and O_NONBLOCK are added. O_NONBLOCK stays set: it has no effect on a regular file
    (open(2)), and nothing else is returned.

    Raises:
        NotPlain: a FIFO, a socket or a device.
        IsADirectoryError: a directory.
        OSError: EAGAIN, if with a `judge` the name came and went too often.
    """
    flags |= _ALWAYS
    if judge is not None:
        return _open_judged(root, path, flags, mode, judge)
    try:
        if "/" in path and root.only is None and not flags & _SPECIAL:
            # What `reach` does with such a path, without the call.
            descriptor = root.opener(path.encode(ENCODING, ERRORS), flags, mode)
        else:
            descriptor = root.reach(path, flags, mode)
    except OSError as error:
        # A socket, or a FIFO that nobody reads, opened for writing (open(2)); macOS: EOPNOTSUPP.
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):
            raise NotPlain(path) from error
        raise
    kind = os.fstat(descriptor).st_mode & _KIND
    if kind == _REGULAR:
        return descriptor
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotPlain(path)


def open_directory(root: Root, path: str, judge: Judge | None = None) -> int:
    """Opens the directory `path` for listing and returns a descriptor."""
    return _reach_judged(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, judge)


def list_directory(root: Root, path: str, judge: Judge | None = None) -> list[str]:
    """The names in the directory `path`, in no order, without `.` and `..`."""
    descriptor = open_directory(root, path, judge)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def status(root: Root, path: str, judge: Judge | None = None) -> os.stat_result:
    """stat(2) of `path`, links followed. The thing itself is never opened: no FIFO or device is touched."""
    if not O_PATH:
        return status_by_walking(root, path, judge)
    descriptor = _reach_judged(root, path, O_PATH | os.O_CLOEXEC, judge)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _reach_judged(root: Root, path: str, flags: int, judge: Judge | None) -> int:
    try:
        descriptor = root.reach(path, flags)
    except OSError:
        judge_way(root, path, judge)
        raise
    try:
        root.judge(descriptor, judge)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def status_by_walking(root: Root, path: str, judge: Judge | None = None) -> os.stat_result:
    """`status` for macOS, where opening asks for permission to read: walks to the directory, then fstatat(2)."""
    with Walk(root.descriptor, os.fsencode(root.inner(path))) as walk:
        try:
            spot = walk.parent()
            while walk.follow(spot):
                spot = walk.parent()
            name = os.fsdecode(spot.name)
            found = os.stat(name, dir_fd=spot.directory, follow_symlinks=False)
        except OSError:
            judge_way(root, path, judge)
            raise
        root.judge(spot.directory, judge, None if name == "." else name)
        if spot.must_be_directory and not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return found


def _open_judged(root: Root, path: str, flags: int, mode: int, judge: Judge) -> int:
    """In steps, so that nothing changes before the judge has seen its place.

    What exists is opened without O_CREAT and O_TRUNC, judged, then cut. What does not is created with O_EXCL
    in its directory, which is held open while the place is judged. Between the two a name may come or go.
    """
    create = bool(flags & os.O_CREAT)
    exclusive = create and bool(flags & os.O_EXCL)
    for _ in range(_TRIES):
        if not exclusive:
            try:
                return _open_existing(root, path, flags, judge)
            except OSError as error:
                if not create or error.errno != errno.ENOENT:
                    judge_way(root, path, judge)
                    raise
        with Place.of(root, path, judge, follow=not exclusive) as place:
            try:
                created = flags | os.O_EXCL | os.O_NOFOLLOW
                return os.open(place.name, created, mode, dir_fd=place.directory)
            except FileExistsError:
                if exclusive:
                    raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def _open_existing(root: Root, path: str, flags: int, judge: Judge) -> int:
    if flags & os.O_CREAT:
        root.refuse_unnamed(root.inner(path))
    descriptor = open_file(root, path, flags & ~(os.O_CREAT | os.O_TRUNC | os.O_EXCL))
    try:
        root.judge(descriptor, judge)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
