"""Running other code: exec in every form, new processes, native code. Twin: threads."""

import _ctypes
import ctypes
import mmap
import multiprocessing
import os
import shutil
import subprocess
import threading
from typing import Any

from nyx_core.linux.libc import syscall, syscall_number
from nyx_core.sandbox import confine
from tests.escape.kernel.room import Book, Kept, confinement, prepare

TRUE = b"/bin/true"
AT_EMPTY_PATH = 0x1000
CLONE_NEWUSER, SIGCHLD = 0x1000_0000, 17
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")


def run_a_thread(_had: Any) -> None:
    """Threads start, run and end."""
    ran: list[int] = []
    thread = threading.Thread(target=ran.append, args=(1,))
    thread.start()
    thread.join()
    if ran != [1]:
        raise RuntimeError("the thread did not run")


book = Book("Code", run_a_thread)


def _vector() -> int:
    """Address of an argument vector for TRUE, kept alive on purpose."""
    words = (ctypes.c_char_p * 2)(TRUE, None)
    _keep.append(words)
    return ctypes.addressof(words)


_keep: list[object] = []


def _reap(child: int) -> None:
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _must_be_zero(status: int) -> None:
    if status != 0:
        raise PermissionError(1, f"status {status}")


@book.attack("seccomp")
def execve_by_python(_had: Any) -> None:
    os.execv(TRUE, [TRUE])


@book.attack("seccomp")
def execve_by_call(_had: Any) -> None:
    syscall("execve", TRUE, _vector(), None)


def _program() -> Kept:
    os.dup2(os.open(TRUE, os.O_RDONLY), 9)
    return Kept(9, (9,))


@book.attack("seccomp", before=_program)
def execve_by_descriptor(had: Any) -> None:
    os.execve(had.value, [TRUE], {})


@book.attack("seccomp")
def execveat_by_call(_had: Any) -> None:
    syscall("execveat", -100, TRUE, _vector(), None, 0)


@book.attack("seccomp")
def memfd_by_python(_had: Any) -> None:
    os.memfd_create("x")


@book.attack("seccomp")
def memfd_by_call(_had: Any) -> None:
    syscall("memfd_create", b"x", 0)


def _memfd_program() -> Kept:
    descriptor = os.memfd_create("x", 0)
    with open(TRUE, "rb") as program:
        os.write(descriptor, program.read())
    os.dup2(descriptor, 9)
    return Kept(9, (9,))


@book.attack("seccomp", before=_memfd_program)
def memfd_then_execveat(had: Any) -> None:
    syscall("execveat", had.value, b"", _vector(), None, AT_EMPTY_PATH)


@book.attack("seccomp")
def loader_runs_a_file(_had: Any) -> None:
    loader = next(path for path in LOADERS if os.path.exists(path))
    os.execv(loader, [loader, TRUE.decode()])


def _shared_object() -> str:
    shutil.copyfile(_ctypes.__file__, "data/native.so")
    return os.path.abspath("data/native.so")


def _read_it(had: Any) -> None:
    with open(had, "rb") as file:
        file.read(16)


@book.attack("seccomp", before=_shared_object, twin=_read_it, answers=("OSError:",))
def dlopen_from_a_writable_directory(had: Any) -> None:
    ctypes.CDLL(had)


@book.attack("seccomp")
def executable_memory_by_python(_had: Any) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def _page(_had: Any) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()


@book.attack("seccomp", twin=_page)
def executable_memory_by_mprotect(_had: Any) -> None:
    address = syscall("mmap", 0, 4096, 1, 0x22, -1, 0)
    syscall("mprotect", address, 4096, 5)


@book.attack("seccomp")
def fork_by_python(_had: Any) -> None:
    _reap(os.fork())


@book.attack("seccomp")
def fork_by_call(_had: Any) -> None:
    # AArch64 has no such call; there clone with SIGCHLD is what fork is.
    _reap(syscall_number(57) if os.uname().machine == "x86_64" else syscall("clone", SIGCHLD, 0, 0, 0, 0))


@book.attack("seccomp")
def clone_by_call(_had: Any) -> None:
    _reap(syscall("clone", SIGCHLD, 0, 0, 0, 0))


@book.attack("seccomp", answers=("ENOSYS",))
def clone3_by_call(_had: Any) -> None:
    arguments = bytearray(88)
    arguments[32] = SIGCHLD
    _reap(syscall("clone3", arguments, len(arguments)))


@book.attack("seccomp")
def posix_spawn(_had: Any) -> None:
    os.waitpid(os.posix_spawn(TRUE, [TRUE], {}), 0)


@book.attack("seccomp")
def vfork_and_exec_by_subprocess(_had: Any) -> None:
    subprocess.run([TRUE], check=True)


@book.attack("seccomp")
def fork_and_exec_by_subprocess(_had: Any) -> None:
    subprocess.run([TRUE], check=True, preexec_fn=os.getpid)


@book.attack("seccomp")
def multiprocessing_fork(_had: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()


@book.attack("seccomp")
def system_shell(_had: Any) -> None:
    _must_be_zero(os.system("true"))


@book.attack("seccomp")
def popen_shell(_had: Any) -> None:
    os.popen("true").close()


def report() -> dict[str, str]:
    """State of each layer of a sealed process."""
    prepare()
    return {layer.name: layer.state.value for layer in confine(confinement()).layers}


CASES = book.cases() | {"report": report}
