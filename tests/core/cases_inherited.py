"""What a sealed process inherits, and its limits: one case per promise."""

import errno
import fcntl
import os
import pty
import resource
import signal
import socket
import termios
import threading
from collections.abc import Callable
from typing import Any

from nyx_core.linux.procfs import environment_block
from nyx_core.sandbox import Confinement, Limit, ResourceLimits, SandboxError, confine

MIB = 1024 * 1024
LARGE_MEMORY = ResourceLimits(memory=Limit(1024 * MIB, 1024 * MIB))


def refused(act: Callable[[], Any]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except MemoryError:
        return "MemoryError"
    return "succeeded"


def descriptors() -> Any:
    kept, _lost = os.open("/etc/passwd", os.O_RDONLY), os.open("/etc/group", os.O_RDONLY)
    os.dup2(kept, 40)
    report = confine(Confinement(readable=("/proc",), keep_descriptors=(0, 1, 2, 40)))
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    still = [number for number in listed if refused(lambda n=number: os.fstat(n)) == "succeeded"]
    return [list(report.descriptors or ()), sorted(still), refused(lambda: os.fstat(kept))]


def environment() -> Any:
    os.environ["ALSO"] = "added later"
    confine(Confinement(readable=("/proc",), environment=("TZ", "NOT_SET")))
    with open("/proc/self/environ", "rb") as file:
        block = file.read()
    return [dict(os.environ), os.getenv("SECRET"), block.strip(b"\0").decode(), os.environ["TZ"]]


def environment_memory() -> Any:
    """The process's memory, read through a descriptor opened before: the environment's secret is gone."""
    start, end = environment_block()
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    before = os.pread(memory, end - start, start)
    confine(Confinement(keep_descriptors=(0, 1, 2, memory)))
    return [b"hunter2" in before, b"hunter2" in os.pread(memory, end - start, start)]


def directory_and_masks() -> Any:
    os.mkdir("there")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    directory = os.path.abspath("there")
    confine(Confinement(working_directory=directory, new_session=True, readable=("/dev",)))
    return {
        "directory": os.getcwd() == directory,
        "umask": oct(os.umask(0o077)),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "leader": os.getsid(0) == os.getpid(),
    }


def _terminal() -> None:
    """Become the leader of a session with a controlling terminal."""
    master, slave = pty.openpty()
    os.dup2(master, 8)  # its last descriptor closing would hang the terminal up
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def terminal() -> Any:
    """A forked process leaves the terminal; its session leader can't, and gets an error."""
    _terminal()
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        before = refused(lambda: os.close(os.open("/dev/tty", os.O_RDONLY)))
        confine(Confinement(new_session=True, readable=("/dev",), keep_descriptors=(0, 1, 2, out)))
        after = refused(lambda: os.close(os.open("/dev/tty", os.O_RDONLY)))
        os.write(out, f"{before} {after}".encode())
        os._exit(0)
    os.close(out)
    from_child = os.read(back, 100).decode()
    os.waitpid(child, 0)
    try:
        confine(Confinement(new_session=True))
    except SandboxError as error:
        return [from_child, error.layer]
    return [from_child, "no error"]


def inherited_descriptor_stays_usable_and_no_more() -> Any:
    with open("file", "w") as file:
        file.write("text")
    descriptor = os.open("file", os.O_RDONLY)
    confine(Confinement(keep_descriptors=(0, 1, 2, descriptor)))
    return [
        os.read(descriptor, 4).decode(),
        refused(lambda: os.write(descriptor, b"x")),
        refused(lambda: os.ftruncate(descriptor, 0)),
        refused(lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)),
    ]


def address_space() -> Any:
    confine(Confinement(limits=ResourceLimits(memory=Limit(96 * MIB, 96 * MIB))))
    return [refused(lambda: bytearray(16 * MIB)), refused(lambda: bytearray(200 * MIB))]


def a_limit_cannot_be_raised() -> Any:
    confine(Confinement())
    return refused(lambda: _raise(resource.RLIMIT_NOFILE, 4096))


def _raise(number: int, value: int) -> None:
    try:
        resource.setrlimit(number, (value, value))
    except ValueError as error:  # raised by Python for EPERM
        raise PermissionError(errno.EPERM, str(error)) from error


def open_files() -> Any:
    confine(Confinement(limits=ResourceLimits(open_files=Limit(32, 32)), python_runtime=True))
    opened: list[int] = []

    def many() -> None:
        while True:
            opened.extend(os.pipe())

    answer = refused(many)
    return [answer, max(opened)]


def processes() -> Any:
    """An ordinary user's threads count against the limit; root is exempt, and the report says so."""
    wanted = ResourceLimits(memory=None, processes=Limit(12, 12))
    report = confine(Confinement(limits=wanted))
    maximum = next(limit.hard for limit in report.limits if limit.name == "processes")
    stop = threading.Event()
    started = 0
    try:
        for _ in range(maximum + 20):
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    stop.set()
    return [started, maximum]


def cpu_seconds() -> Any:
    confine(Confinement(limits=ResourceLimits(cpu_seconds=Limit(1, 1))))
    while True:
        sum(range(10000))


def file_size() -> Any:
    os.mkdir("data")
    wanted = ResourceLimits(file_size=Limit(4096, 4096))
    confine(Confinement(limits=wanted, writable=(os.path.abspath("data"),)))
    with open("data/file", "wb", buffering=0) as file:
        written = file.write(bytes(4096))
        return [written, refused(lambda: file.write(b"x"))]


def core() -> Any:
    confine(Confinement())
    return list(resource.getrlimit(resource.RLIMIT_CORE))


def threads_that_start_later_are_sealed() -> Any:
    confine(Confinement(limits=LARGE_MEMORY))
    found: dict[str, str] = {}

    def work() -> None:
        found["fork"] = refused(os.fork)
        found["socket"] = refused(socket.socket)
        found["read"] = refused(lambda: open("/etc/passwd").close())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


CASES = {
    function.__name__: function
    for function in (
        descriptors,
        environment,
        environment_memory,
        directory_and_masks,
        terminal,
        inherited_descriptor_stays_usable_and_no_more,
        address_space,
        a_limit_cannot_be_raised,
        open_files,
        processes,
        cpu_seconds,
        file_size,
        core,
        threads_that_start_later_are_sealed,
    )
}
