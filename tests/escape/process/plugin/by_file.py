"""Attacks with the descriptor of a file that the host opened: read-only in its folder, or writable."""

import _ctypes
import ctypes
import fcntl
import mmap
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path

from table import attack

_F_NOTIFY, _DN_MODIFY = 1026, 2
_FS_IOC_SETFLAGS = 0x4008_6602
_AT_EMPTY_PATH = 0x1000


class Dropped(Exception):
    """The host ignored the request."""


@asynccontextmanager
async def readable(plugin):
    """A descriptor of a read-only file."""
    async with plugin.files.open(f"{plugin.own}/table.py", "rb") as file:
        yield file.fileno()


@asynccontextmanager
async def writable(plugin):
    """A descriptor of a file that the plugin may write."""
    async with plugin.files.open("mine", "r+b") as file:
        yield file.fileno()


async def read(plugin):
    """Reading works."""
    async with readable(plugin) as descriptor:
        return len(os.pread(descriptor, 100, 0)) == 100


async def write(plugin):
    """Writing and truncating the plugin's own file works."""
    async with writable(plugin) as descriptor:
        os.pwrite(descriptor, b"x", 20)
        os.ftruncate(descriptor, 16)
        return os.fstat(descriptor).st_size


@attack("Files", "kernel", twin=write)
async def write_to_what_is_read_only(plugin):
    async with readable(plugin) as descriptor:
        os.write(descriptor, b"x")


@attack("Files", "kernel", twin=write)
async def truncate_what_is_read_only(plugin):
    async with readable(plugin) as descriptor:
        os.ftruncate(descriptor, 0)


@attack("Files", "kernel", twin=read, answers=("EACCES",))
async def map_what_is_read_only_to_write(plugin):
    async with readable(plugin) as descriptor:
        mmap.mmap(descriptor, 100, access=mmap.ACCESS_WRITE)


@attack("Files", "landlock", twin=read)
async def reopen_to_write(plugin):
    async with readable(plugin) as descriptor:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY))


@attack("Files", "landlock", twin=write)
async def reopen_an_own_file(plugin):
    async with writable(plugin) as descriptor:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))


@attack("Files", "kernel", twin=read, answers=("ENOTDIR",))
async def walk_from_it(plugin):
    async with readable(plugin) as descriptor:
        os.close(os.open("../plugin.toml", os.O_RDONLY, dir_fd=descriptor))


@attack("Files", "seccomp", twin=write)
async def chmod(plugin):
    async with writable(plugin) as descriptor:
        os.fchmod(descriptor, 0o4777)


@attack("Files", "seccomp", twin=write)
async def chown(plugin):
    async with writable(plugin) as descriptor:
        os.fchown(descriptor, os.getuid(), os.getgid())


@attack("Files", "seccomp", twin=write)
async def utime(plugin):
    async with writable(plugin) as descriptor:
        os.utime(descriptor, (0, 0))


@attack("Files", "seccomp", twin=write)
async def setxattr(plugin):
    async with writable(plugin) as descriptor:
        os.setxattr(descriptor, "user.x", b"1")


@attack("Files", "seccomp", twin=write)
async def file_flags(plugin):
    async with writable(plugin) as descriptor:
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, b"\x10\0\0\0\0\0\0\0")


@attack("Files", "seccomp", twin=write)
async def link_by_descriptor(plugin):
    async with writable(plugin) as descriptor:
        library = ctypes.CDLL(None, use_errno=True)
        if library.linkat(descriptor, b"", -100, b"/tmp/nyx-stolen", _AT_EMPTY_PATH) != 0:
            raise OSError(ctypes.get_errno(), "linkat")


@attack("Files", "seccomp", twin=write)
async def stall_others_by_a_lease(plugin):
    async with writable(plugin) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)


@attack("Kernel", "seccomp", twin=write)
async def signal_the_host_as_owner(plugin):
    async with writable(plugin) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getppid())


@attack("Code", "seccomp", twin=read)
async def run_a_passed_file(plugin):
    async with readable(plugin) as descriptor:
        os.execve(descriptor, ["x"], {})


def _native_code():
    return Path(_ctypes.__file__).read_bytes()


@attack("Code", "landlock", twin=read, answers=("OSError",))
async def load_native_code_that_it_wrote(plugin):
    await plugin.files.write_bytes("native.so", _native_code())
    async with plugin.files.open("native.so", "rb") as file:
        ctypes.CDLL(f"/proc/self/fd/{file.fileno()}")


@attack("Files", "broker", twin=read, answers=("Dropped",))
async def pass_a_descriptor_to_the_host(plugin):
    # Over a pipe whose other end the host reads as bytes: the kernel drops what nobody asks for (unix(7)).
    line = plugin._context.rpc.to("files")
    told = await line.ask("announce")
    async with readable(plugin) as descriptor:
        with socket.socket(fileno=told.descriptors[0]) as pipe:
            socket.send_fds(pipe, [b"\0\0\0\0"], [descriptor] * 10)
            pipe.shutdown(socket.SHUT_WR)
            await line.ask("write", path="empty", body=told.value)
    raise Dropped
