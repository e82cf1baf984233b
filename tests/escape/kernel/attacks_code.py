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
from tests.escape.kernel.attack import AttackList, Inherited, confinement, prepare

TRUE = b"/bin/true"
AT_EMPTY_PATH = 0x1000
CLONE_NEWUSER, SIGCHLD = 0x1000_0000, 17
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")


def run_a_thread(_inherited: Any) -> None:
    """Threads start, run and end."""
    ran: list[int] = []
    thread = threading.Thread(target=ran.append, args=(1,))
    thread.start()
    thread.join()
    if ran != [1]:
        raise RuntimeError("the thread did not run")


attacks = AttackList("Code", run_a_thread)


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


@attacks.add("seccomp")
def execve_by_python(_inherited: Any) -> None:
    os.execv(TRUE, [TRUE])


@attacks.add("seccomp")
def execve_by_call(_inherited: Any) -> None:
    syscall("execve", TRUE, _vector(), None)


def _program() -> Inherited:
    os.dup2(os.open(TRUE, os.O_RDONLY), 9)
    return Inherited(9, (9,))


@attacks.add("seccomp", setup=_program)
def execve_by_descriptor(inherited: Any) -> None:
    os.execve(inherited.value, [TRUE], {})


@attacks.add("seccomp")
def execveat_by_call(_inherited: Any) -> None:
    syscall("execveat", -100, TRUE, _vector(), None, 0)


@attacks.add("seccomp")
def memfd_by_python(_inherited: Any) -> None:
    os.memfd_create("x")


@attacks.add("seccomp")
def memfd_by_call(_inherited: Any) -> None:
    syscall("memfd_create", b"x", 0)


def _memfd_program() -> Inherited:
    descriptor = os.memfd_create("x", 0)
    with open(TRUE, "rb") as program:
        os.write(descriptor, program.read())
    os.dup2(descriptor, 9)
    return Inherited(9, (9,))


@attacks.add("seccomp", setup=_memfd_program)
def memfd_then_execveat(inherited: Any) -> None:
    syscall("execveat", inherited.value, b"", _vector(), None, AT_EMPTY_PATH)


@attacks.add("seccomp")
def loader_runs_a_file(_inherited: Any) -> None:
    loader = next(path for path in LOADERS if os.path.exists(path))
    os.execv(loader, [loader, TRUE.decode()])


def _shared_object() -> str:
    shutil.copyfile(_ctypes.__file__, "data/native.so")
    return os.path.abspath("data/native.so")


def _read_it(inherited: Any) -> None:
    with open(inherited, "rb") as file:
        file.read(16)


@attacks.add("seccomp", setup=_shared_object, twin=_read_it, answers=("OSError:",))
def dlopen_from_a_writable_directory(inherited: Any) -> None:
    ctypes.CDLL(inherited)


@attacks.add("seccomp")
def executable_memory_by_python(_inherited: Any) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def _page(_inherited: Any) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()


@attacks.add("seccomp", twin=_page)
def executable_memory_by_mprotect(_inherited: Any) -> None:
    address = syscall("mmap", 0, 4096, 1, 0x22, -1, 0)
    syscall("mprotect", address, 4096, 5)


@attacks.add("seccomp")
def fork_by_python(_inherited: Any) -> None:
    _reap(os.fork())


@attacks.add("seccomp")
def fork_by_call(_inherited: Any) -> None:
    # AArch64 has no such call; there fork is clone with SIGCHLD.
    _reap(syscall_number(57) if os.uname().machine == "x86_64" else syscall("clone", SIGCHLD, 0, 0, 0, 0))


@attacks.add("seccomp")
def clone_by_call(_inherited: Any) -> None:
    _reap(syscall("clone", SIGCHLD, 0, 0, 0, 0))


@attacks.add("seccomp", answers=("ENOSYS",))
def clone3_by_call(_inherited: Any) -> None:
    arguments = bytearray(88)
    arguments[32] = SIGCHLD
    _reap(syscall("clone3", arguments, len(arguments)))


@attacks.add("seccomp")
def posix_spawn(_inherited: Any) -> None:
    os.waitpid(os.posix_spawn(TRUE, [TRUE], {}), 0)


@attacks.add("seccomp")
def vfork_and_exec_by_subprocess(_inherited: Any) -> None:
    subprocess.run([TRUE], check=True)


@attacks.add("seccomp")
def fork_and_exec_by_subprocess(_inherited: Any) -> None:
    subprocess.run([TRUE], check=True, preexec_fn=os.getpid)


@attacks.add("seccomp")
def multiprocessing_fork(_inherited: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()


@attacks.add("seccomp")
def system_shell(_inherited: Any) -> None:
    _must_be_zero(os.system("true"))


@attacks.add("seccomp")
def popen_shell(_inherited: Any) -> None:
    os.popen("true").close()


def report() -> dict[str, str]:
    """State of each layer of a sealed process."""
    prepare()
    return {layer.name: layer.state.value for layer in confine(confinement()).layers}


CASES = attacks.cases() | {"report": report}
