"""Files outside the grants, and what no path right covers, by path and by descriptor. Twin: the same inside."""

import ctypes
import importlib
import os
from typing import Any

from nyx_core.linux.libc import syscall
from tests.escape.kernel.room import Book, Kept, reach

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000


def read_and_write_inside(_had: Any) -> None:
    """What is granted works: read `readable`, write `data`."""
    with open("readable/file") as file:
        file.read()
    with open("data/new", "w") as file:
        file.write("x")


book = Book("Files", read_and_write_inside)


def _write_descriptor() -> Kept:
    """A descriptor opened for reading, outside the writable paths, that stays open."""
    os.dup2(os.open("readable/file", os.O_RDONLY), 3)
    return Kept(3, (3,))


def _read_descriptor(had: Any) -> None:
    os.pread(had.value, 4, 0)


@book.attack("landlock")
def open_to_read(_had: Any) -> None:
    open("outside/file").close()


@book.attack("landlock")
def open_to_write(_had: Any) -> None:
    open("readable/file", "a").close()


@book.attack("landlock")
def create(_had: Any) -> None:
    open("outside/new", "w").close()


@book.attack("landlock")
def openat_by_call(_had: Any) -> None:
    os.close(syscall("openat", AT_FDCWD, b"outside/file", os.O_RDONLY, 0))


@book.attack("landlock")
def openat2_by_call(_had: Any) -> None:
    os.close(syscall("openat2", AT_FDCWD, b"outside/file", bytes(24), 24))


@book.attack("landlock")
def open_through_dots(_had: Any) -> None:
    open("readable/../outside/file").close()


@book.attack("landlock", before=lambda: os.symlink("../outside/file", "data/link"))
def open_through_a_link(_had: Any) -> None:
    open("data/link").close()


@book.attack("landlock")
def list_a_directory(_had: Any) -> None:
    os.listdir("outside")


@book.attack("landlock")
def list_by_a_path_descriptor(_had: Any) -> None:
    place = os.open("outside", os.O_PATH)
    os.close(os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY))


def _stat_inside(_had: Any) -> None:
    os.stat("data/file")


@book.attack("seccomp", twin=_stat_inside)
def stat_then_chmod(_had: Any) -> None:
    os.chmod("outside/file", os.stat("outside/file").st_mode ^ 0o11)


@book.attack("seccomp", twin=_stat_inside)
def fchmodat2_by_call(_had: Any) -> None:
    syscall("fchmodat2", AT_FDCWD, b"outside/file", 0o600, 0)


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def chmod_by_descriptor(had: Any) -> None:
    os.fchmod(had.value, 0o666)


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def chmod_by_empty_path(had: Any) -> None:
    syscall("fchmodat2", had.value, b"", 0o600, AT_EMPTY_PATH)


@book.attack("seccomp", twin=_stat_inside)
def chown(_had: Any) -> None:
    os.chown("outside/file", os.getuid(), os.getgid())


@book.attack("seccomp", twin=_stat_inside)
def lchown(_had: Any) -> None:
    os.lchown("outside/file", os.getuid(), os.getgid())


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def chown_by_descriptor(had: Any) -> None:
    os.fchown(had.value, os.getuid(), os.getgid())


@book.attack("seccomp", twin=_stat_inside)
def utime(_had: Any) -> None:
    os.utime("outside/file", (0, 0))


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def utime_by_descriptor(had: Any) -> None:
    os.utime(had.value, (0, 0))


@book.attack("seccomp", twin=_stat_inside)
def setxattr(_had: Any) -> None:
    os.setxattr("outside/file", "user.x", b"1")


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def setxattr_by_descriptor(had: Any) -> None:
    os.setxattr(had.value, "user.x", b"1")


@book.attack("seccomp", twin=_stat_inside)
def removexattr_by_call(_had: Any) -> None:
    reach("removexattr", b"outside/file", b"user.x")


@book.attack("seccomp", before=_write_descriptor, twin=_read_descriptor)
def file_flags_by_ioctl(had: Any) -> None:
    flags = bytearray(8)
    reach("ioctl", had.value, 0x4008_6602, flags)


@book.attack("landlock", twin=lambda _had: os.truncate("data/file", 1))
def truncate(_had: Any) -> None:
    os.truncate("readable/file", 0)


@book.attack("landlock", twin=lambda _had: os.truncate("data/file", 1))
def truncate_while_opening_to_read(_had: Any) -> None:
    os.close(os.open("readable/file", os.O_RDONLY | os.O_TRUNC))


@book.attack("landlock", twin=lambda _had: os.rename("data/file", "data/moved"), answers=("EACCES", "EXDEV"))
def rename(_had: Any) -> None:
    os.rename("outside/file", "outside/moved")


@book.attack("landlock", twin=lambda _had: os.rename("data/file", "data/moved"), answers=("EACCES", "EXDEV"))
def rename_out(_had: Any) -> None:
    os.rename("data/file", "readable/moved")


@book.attack("landlock", twin=lambda _had: os.link("data/file", "data/twin"), answers=("EACCES", "EXDEV"))
def link_in_from_outside(_had: Any) -> None:
    os.link("outside/file", "data/stolen")


@book.attack("landlock", twin=lambda _had: os.link("data/file", "data/twin"), answers=("EACCES", "EXDEV"))
def linkat_by_call(_had: Any) -> None:
    syscall("linkat", AT_FDCWD, b"outside/file", AT_FDCWD, b"data/stolen", 0)


@book.attack("landlock", twin=lambda _had: os.symlink("file", "data/sym"))
def symlink(_had: Any) -> None:
    os.symlink("file", "outside/sym")


@book.attack("landlock", twin=lambda _had: os.unlink("data/victim"))
def unlink(_had: Any) -> None:
    os.unlink("outside/victim")


@book.attack("landlock", twin=lambda _had: os.mkdir("data/sub"))
def mkdir(_had: Any) -> None:
    os.mkdir("outside/sub")


def _make_and_remove(_had: Any) -> None:
    os.mkdir("data/sub")
    os.rmdir("data/sub")


@book.attack("landlock", before=lambda: os.mkdir("outside/sub"), twin=_make_and_remove)
def rmdir(_had: Any) -> None:
    os.rmdir("outside/sub")


@book.attack("landlock")
def own_environment(_had: Any) -> None:
    open("/proc/self/environ").close()


@book.attack("landlock", free="process 1 may hold capabilities that not even this root has")
def environment_of_process_1(_had: Any) -> None:
    open("/proc/1/environ").close()


@book.attack("landlock")
def environment_of_the_parent(_had: Any) -> None:
    open(f"/proc/{os.getppid()}/environ").close()


@book.attack("landlock")
def own_memory(_had: Any) -> None:
    open("/proc/self/mem", "r+b", buffering=0).close()


@book.attack("landlock", before=_write_descriptor, twin=_read_descriptor)
def reopen_an_inherited_descriptor_to_write(had: Any) -> None:
    os.close(os.open(f"/proc/self/fd/{had.value}", os.O_WRONLY))


def _import_on(_had: Any) -> None:
    importlib.import_module("colorsys")


@book.attack("landlock", twin=_import_on)
def write_into_the_import_path(_had: Any) -> None:
    directory = os.path.dirname(os.__file__)
    if os.getuid() != 0:
        open("outside/module.py", "w").close()  # nobody may not write there anyway
        return
    name = os.path.join(directory, "nyx_escape_attempt.py")
    try:
        open(name, "w").close()
    finally:
        if os.path.exists(name):
            os.unlink(name)


@book.attack("seccomp", root=True)
def device_node(_had: Any) -> None:
    os.mknod("data/null", 0o600 | 0o020000, os.makedev(1, 3))


@book.attack("seccomp", root=True)
def device_node_by_call(_had: Any) -> None:
    syscall("mknodat", AT_FDCWD, b"data/null", 0o020600, os.makedev(1, 3))


@book.attack("seccomp")
def file_handle(_had: Any) -> None:
    handle = bytearray(136)
    handle[0] = 128
    mount = ctypes.c_int()
    syscall("name_to_handle_at", AT_FDCWD, b"outside/file", handle, ctypes.addressof(mount), 0)


@book.attack("seccomp")
def open_by_file_handle(_had: Any) -> None:
    reach("open_by_handle_at", AT_FDCWD, bytes(16), 0)


CASES = book.cases()
