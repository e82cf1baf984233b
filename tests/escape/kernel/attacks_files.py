"""Files outside the grants, and changes that no path right covers. Twin: the same inside."""

import ctypes
import importlib
import os
from typing import Any

from nyx_core.linux.libc import syscall
from tests.escape.kernel.attack import AttackList, Inherited, call_kernel

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000


def read_and_write_inside(_inherited: Any) -> None:
    """Read `readable`, write `data`."""
    with open("readable/file") as file:
        file.read()
    with open("data/new", "w") as file:
        file.write("x")


attacks = AttackList("Files", read_and_write_inside)


def _write_descriptor() -> Inherited:
    """A descriptor opened for reading, outside the writable paths, that stays open."""
    os.dup2(os.open("readable/file", os.O_RDONLY), 3)
    return Inherited(3, (3,))


def _read_descriptor(inherited: Any) -> None:
    os.pread(inherited.value, 4, 0)


@attacks.add("landlock")
def open_to_read(_inherited: Any) -> None:
    open("outside/file").close()


@attacks.add("landlock")
def open_to_write(_inherited: Any) -> None:
    open("readable/file", "a").close()


@attacks.add("landlock")
def create(_inherited: Any) -> None:
    open("outside/new", "w").close()


@attacks.add("landlock")
def openat_by_call(_inherited: Any) -> None:
    os.close(syscall("openat", AT_FDCWD, b"outside/file", os.O_RDONLY, 0))


@attacks.add("landlock")
def openat2_by_call(_inherited: Any) -> None:
    os.close(syscall("openat2", AT_FDCWD, b"outside/file", bytes(24), 24))


@attacks.add("landlock")
def open_through_dots(_inherited: Any) -> None:
    open("readable/../outside/file").close()


@attacks.add("landlock", setup=lambda: os.symlink("../outside/file", "data/link"))
def open_through_a_link(_inherited: Any) -> None:
    open("data/link").close()


@attacks.add("landlock")
def list_a_directory(_inherited: Any) -> None:
    os.listdir("outside")


@attacks.add("landlock")
def list_by_a_path_descriptor(_inherited: Any) -> None:
    directory = os.open("outside", os.O_PATH)
    os.close(os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY))


def _stat_inside(_inherited: Any) -> None:
    os.stat("data/file")


@attacks.add("seccomp", twin=_stat_inside)
def stat_then_chmod(_inherited: Any) -> None:
    os.chmod("outside/file", os.stat("outside/file").st_mode ^ 0o11)


@attacks.add("seccomp", twin=_stat_inside)
def fchmodat2_by_call(_inherited: Any) -> None:
    syscall("fchmodat2", AT_FDCWD, b"outside/file", 0o600, 0)


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def chmod_by_descriptor(inherited: Any) -> None:
    os.fchmod(inherited.value, 0o666)


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def chmod_by_empty_path(inherited: Any) -> None:
    syscall("fchmodat2", inherited.value, b"", 0o600, AT_EMPTY_PATH)


@attacks.add("seccomp", twin=_stat_inside)
def chown(_inherited: Any) -> None:
    os.chown("outside/file", os.getuid(), os.getgid())


@attacks.add("seccomp", twin=_stat_inside)
def lchown(_inherited: Any) -> None:
    os.lchown("outside/file", os.getuid(), os.getgid())


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def chown_by_descriptor(inherited: Any) -> None:
    os.fchown(inherited.value, os.getuid(), os.getgid())


@attacks.add("seccomp", twin=_stat_inside)
def utime(_inherited: Any) -> None:
    os.utime("outside/file", (0, 0))


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def utime_by_descriptor(inherited: Any) -> None:
    os.utime(inherited.value, (0, 0))


@attacks.add("seccomp", twin=_stat_inside)
def setxattr(_inherited: Any) -> None:
    os.setxattr("outside/file", "user.x", b"1")


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def setxattr_by_descriptor(inherited: Any) -> None:
    os.setxattr(inherited.value, "user.x", b"1")


@attacks.add("seccomp", twin=_stat_inside)
def removexattr_by_call(_inherited: Any) -> None:
    call_kernel("removexattr", b"outside/file", b"user.x")


@attacks.add("seccomp", setup=_write_descriptor, twin=_read_descriptor)
def file_flags_by_ioctl(inherited: Any) -> None:
    flags = bytearray(8)
    call_kernel("ioctl", inherited.value, 0x4008_6602, flags)


@attacks.add("landlock", twin=lambda _inherited: os.truncate("data/file", 1))
def truncate(_inherited: Any) -> None:
    os.truncate("readable/file", 0)


@attacks.add("landlock", twin=lambda _inherited: os.truncate("data/file", 1))
def truncate_while_opening_to_read(_inherited: Any) -> None:
    os.close(os.open("readable/file", os.O_RDONLY | os.O_TRUNC))


@attacks.add("landlock", twin=lambda _inherited: os.rename("data/file", "data/moved"), answers=("EACCES", "EXDEV"))
def rename(_inherited: Any) -> None:
    os.rename("outside/file", "outside/moved")


@attacks.add("landlock", twin=lambda _inherited: os.rename("data/file", "data/moved"), answers=("EACCES", "EXDEV"))
def rename_out(_inherited: Any) -> None:
    os.rename("data/file", "readable/moved")


@attacks.add("landlock", twin=lambda _inherited: os.link("data/file", "data/twin"), answers=("EACCES", "EXDEV"))
def link_in_from_outside(_inherited: Any) -> None:
    os.link("outside/file", "data/stolen")


@attacks.add("landlock", twin=lambda _inherited: os.link("data/file", "data/twin"), answers=("EACCES", "EXDEV"))
def linkat_by_call(_inherited: Any) -> None:
    syscall("linkat", AT_FDCWD, b"outside/file", AT_FDCWD, b"data/stolen", 0)


@attacks.add("landlock", twin=lambda _inherited: os.symlink("file", "data/sym"))
def symlink(_inherited: Any) -> None:
    os.symlink("file", "outside/sym")


@attacks.add("landlock", twin=lambda _inherited: os.unlink("data/victim"))
def unlink(_inherited: Any) -> None:
    os.unlink("outside/victim")


@attacks.add("landlock", twin=lambda _inherited: os.mkdir("data/sub"))
def mkdir(_inherited: Any) -> None:
    os.mkdir("outside/sub")


def _make_and_remove(_inherited: Any) -> None:
    os.mkdir("data/sub")
    os.rmdir("data/sub")


@attacks.add("landlock", setup=lambda: os.mkdir("outside/sub"), twin=_make_and_remove)
def rmdir(_inherited: Any) -> None:
    os.rmdir("outside/sub")


@attacks.add("landlock")
def own_environment(_inherited: Any) -> None:
    open("/proc/self/environ").close()


@attacks.add("landlock", may_fail_unconfined="process 1 may have capabilities that this root lacks")
def environment_of_process_1(_inherited: Any) -> None:
    open("/proc/1/environ").close()


@attacks.add("landlock")
def environment_of_the_parent(_inherited: Any) -> None:
    open(f"/proc/{os.getppid()}/environ").close()


@attacks.add("landlock")
def own_memory(_inherited: Any) -> None:
    open("/proc/self/mem", "r+b", buffering=0).close()


@attacks.add("landlock", setup=_write_descriptor, twin=_read_descriptor)
def reopen_an_inherited_descriptor_to_write(inherited: Any) -> None:
    os.close(os.open(f"/proc/self/fd/{inherited.value}", os.O_WRONLY))


def _import_on(_inherited: Any) -> None:
    importlib.import_module("colorsys")


@attacks.add("landlock", twin=_import_on)
def write_into_the_import_path(_inherited: Any) -> None:
    directory = os.path.dirname(os.__file__)
    if os.getuid() != 0:
        open("outside/module.py", "w").close()  # an ordinary user may not write to the library
        return
    name = os.path.join(directory, "nyx_escape_attempt.py")
    try:
        open(name, "w").close()
    finally:
        if os.path.exists(name):
            os.unlink(name)


@attacks.add("seccomp", root=True)
def device_node(_inherited: Any) -> None:
    os.mknod("data/null", 0o600 | 0o020000, os.makedev(1, 3))


@attacks.add("seccomp", root=True)
def device_node_by_call(_inherited: Any) -> None:
    syscall("mknodat", AT_FDCWD, b"data/null", 0o020600, os.makedev(1, 3))


@attacks.add("seccomp")
def file_handle(_inherited: Any) -> None:
    handle = bytearray(136)
    handle[0] = 128
    mount = ctypes.c_int()
    syscall("name_to_handle_at", AT_FDCWD, b"outside/file", handle, ctypes.addressof(mount), 0)


@attacks.add("seccomp")
def open_by_file_handle(_inherited: Any) -> None:
    call_kernel("open_by_handle_at", AT_FDCWD, bytes(16), 0)


CASES = attacks.cases()
