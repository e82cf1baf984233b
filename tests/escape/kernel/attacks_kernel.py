"""The kernel's own machinery and other processes. Each reaches the kernel when free; twin: the own process."""

import ctypes
import fcntl
import mmap
import os
import pty
import resource
import signal
import socket
import struct
from typing import Any

from nyx_core.linux.libc import address_of, prctl, syscall, syscall_number
from tests.escape.kernel.room import Book, Kept, computing, reach

AT_FDCWD = -100
SIGCHLD = 17
NEW_NS, NEW_USER, NEW_NET = 0x0002_0000, 0x1000_0000, 0x4000_0000
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
TIOCSTI = 0x5412
X32 = 0x4000_0000
YAMA = "kernel.yama.ptrace_scope may forbid it"
SECRET = bytearray(b"of the parent")  # the same address in the parent, which forked this process

book = Book("Kernel", computing)


@book.attack("seccomp", free=YAMA)
def ptrace(_had: Any) -> None:
    syscall("ptrace", PTRACE_SEIZE, os.getppid(), None, None)
    os.kill(os.getppid(), 0)


def _io_vectors() -> tuple[bytes, bytes, bytearray]:
    target = bytearray(len(SECRET))
    local = struct.pack("=QQ", address_of(target), len(target))
    return local, struct.pack("=QQ", address_of(SECRET), len(SECRET)), target


@book.attack("seccomp", free=YAMA)
def process_vm_readv(_had: Any) -> None:
    local, remote, _target = _io_vectors()
    syscall("process_vm_readv", os.getppid(), local, 1, remote, 1, 0)


@book.attack("seccomp", free=YAMA)
def process_vm_writev(_had: Any) -> None:
    local, remote, target = _io_vectors()
    target[:] = SECRET
    syscall("process_vm_writev", os.getppid(), local, 1, remote, 1, 0)


@book.attack("seccomp")
def pidfd_open(_had: Any) -> None:
    os.close(os.pidfd_open(os.getppid()))


def _parent_pidfd() -> Kept:
    os.dup2(os.pidfd_open(os.getppid()), 9)
    return Kept(9, (9,))


@book.attack("seccomp", before=_parent_pidfd, free=YAMA)
def pidfd_getfd(had: Any) -> None:
    os.close(syscall("pidfd_getfd", had.value, 0, 0))


@book.attack("seccomp", before=_parent_pidfd)
def pidfd_send_signal(had: Any) -> None:
    signal.pidfd_send_signal(had.value, 0)


@book.attack("seccomp", free=YAMA)
def kcmp(_had: Any) -> None:
    syscall("kcmp", os.getpid(), os.getppid(), 1, 0, 0)


def _signal_self(_had: Any) -> None:
    os.kill(os.getpid(), 0)
    signal.raise_signal(signal.SIGCHLD)


@book.attack("seccomp", twin=_signal_self)
def kill_the_host(_had: Any) -> None:
    os.kill(os.getppid(), 0)


@book.attack("seccomp", twin=_signal_self)
def kill_a_group(_had: Any) -> None:
    os.kill(-os.getpgid(os.getppid()), 0)


@book.attack("seccomp", twin=_signal_self)
def tgkill_the_host(_had: Any) -> None:
    syscall("tgkill", os.getppid(), os.getppid(), 0)


@book.attack("seccomp", twin=_signal_self)
def tkill_the_host(_had: Any) -> None:
    syscall("tkill", os.getppid(), 0)


@book.attack("seccomp", twin=_signal_self)
def sigqueue_the_host(_had: Any) -> None:
    info = bytearray(128)
    info[8:12] = struct.pack("=i", -1)  # SI_QUEUE
    syscall("rt_sigqueueinfo", os.getppid(), 0, info)


@book.attack("seccomp", before=lambda: Kept(os.dup2(os.pipe()[0], 9), (9,)))
def signal_through_a_descriptor_owner(had: Any) -> None:
    fcntl.fcntl(had.value, fcntl.F_SETOWN, os.getppid())


def _own_limits(_had: Any) -> None:
    resource.prlimit(0, resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@book.attack("seccomp", twin=_own_limits)
def prlimit_of_the_host(_had: Any) -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)


@book.attack("seccomp", twin=lambda _had: os.sched_setaffinity(0, os.sched_getaffinity(0)))
def affinity_of_the_host(_had: Any) -> None:
    os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))


@book.attack("seccomp")
def priority_of_the_host(_had: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid()))


@book.attack("seccomp")
def io_uring_setup(_had: Any) -> None:
    os.close(syscall("io_uring_setup", 1, bytearray(120)))


@book.attack("seccomp")
def io_uring_enter(_had: Any) -> None:
    reach("io_uring_enter", -1, 0, 0, 0, None, 0)


@book.attack("seccomp")
def io_uring_register(_had: Any) -> None:
    reach("io_uring_register", -1, 0, None, 0)


@book.attack("seccomp", free="user namespaces may be switched off")
def user_namespace_by_unshare(_had: Any) -> None:
    syscall("unshare", NEW_USER)


@book.attack("seccomp", free="user namespaces may be switched off")
def user_namespace_by_clone(_had: Any) -> None:
    child = syscall("clone", NEW_USER | SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@book.attack("seccomp", root=True)
def unshare_the_network(_had: Any) -> None:
    syscall("unshare", NEW_NET)


@book.attack("seccomp")
def setns(_had: Any) -> None:
    reach("setns", -1, 0)


@book.attack("seccomp")
def mount(_had: Any) -> None:
    reach("mount", b"none", b"data/nowhere", b"tmpfs", 0, None)


@book.attack("seccomp")
def umount(_had: Any) -> None:
    reach("umount2", b"data/nowhere", 0)


@book.attack("seccomp", root=True)
def new_mount_api(_had: Any) -> None:
    os.close(syscall("fsopen", b"tmpfs", 0))


@book.attack("seccomp", root=True)
def open_tree(_had: Any) -> None:
    os.close(syscall("open_tree", AT_FDCWD, b"data", 1))


@book.attack("seccomp", root=True)
def move_mount(_had: Any) -> None:
    reach("move_mount", -1, b"", -1, b"", 0)


@book.attack("seccomp", root=True)
def fsmount(_had: Any) -> None:
    reach("fsmount", -1, 0, 0)


@book.attack("seccomp")
def mount_setattr(_had: Any) -> None:
    reach("mount_setattr", -1, b"", 0, None, 0)


@book.attack("seccomp", root=True)
def chroot(_had: Any) -> None:
    os.chroot("/")


@book.attack("seccomp", root=True)
def pivot_root(_had: Any) -> None:
    reach("pivot_root", b"data/nowhere", b"data/nowhere")


@book.attack("seccomp", free="kernel.unprivileged_bpf_disabled may be set")
def bpf(_had: Any) -> None:
    reach("bpf", 0, None, 0)


@book.attack("seccomp")
def perf_event_open(_had: Any) -> None:
    reach("perf_event_open", None, 0, 0, 0, 0)


@book.attack("seccomp", root=True)
def userfaultfd(_had: Any) -> None:
    os.close(syscall("userfaultfd", 0))


@book.attack("seccomp")
def keyctl(_had: Any) -> None:
    syscall("keyctl", 0, -2, 1)


@book.attack("seccomp")
def add_key(_had: Any) -> None:
    syscall("add_key", b"user", b"nyx", b"x", 1, -2)


@book.attack("seccomp")
def request_key(_had: Any) -> None:
    reach("request_key", b"user", b"nyx-none", None, 0)


@book.attack("seccomp", root=True)
def load_module(_had: Any) -> None:
    reach("init_module", None, 0, b"")


@book.attack("seccomp", root=True)
def kexec(_had: Any) -> None:
    reach("kexec_load", 0, 0, None, 0)


@book.attack("seccomp")
def personality(_had: Any) -> None:
    syscall("personality", 0x0004_0000)


@book.attack("seccomp", root=True)
def fanotify(_had: Any) -> None:
    os.close(syscall("fanotify_init", 0, 0))


@book.attack("seccomp")
def system_v_shared_memory(_had: Any) -> None:
    segment = syscall("shmget", 0, 4096, 0o1600)
    syscall("shmctl", segment, 0, None)


@book.attack("seccomp")
def system_v_messages(_had: Any) -> None:
    queue = syscall("msgget", 0, 0o1600)
    syscall("msgctl", queue, 0, None)


@book.attack("seccomp")
def posix_messages(_had: Any) -> None:
    reach("mq_open", b"nyx-none", 0, 0, None)


def _terminal() -> Kept:
    """A controlling terminal that stays open as a descriptor."""
    master, slave = pty.openpty()
    os.dup2(master, 8)  # its last descriptor closing would hang the terminal up
    os.setsid()
    fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    os.dup2(slave, 9)
    return Kept(9, (8, 9))


@book.attack("seccomp", before=_terminal, twin=lambda had: os.isatty(had.value))
def type_into_the_terminal(had: Any) -> None:
    fcntl.ioctl(had.value, TIOCSTI, b"x")


@book.attack("seccomp", before=_terminal, twin=lambda had: os.isatty(had.value))
def type_into_the_terminal_with_bit_32(had: Any) -> None:
    syscall("ioctl", had.value, TIOCSTI | 1 << 32, b"x")


@book.attack("seccomp", answers=("ENOSYS",))
def x32_numbers(_had: Any) -> None:
    syscall_number(X32 | 39)


def _machine_code() -> Any:
    """A page with `mov eax, 20; int 0x80; ret`: getpid of the 32-bit kernel interface."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return Kept((page, call))


@book.attack("seccomp", before=_machine_code, killed=True)
def int_0x80(had: Any) -> None:
    if had.value[1]() != os.getpid():
        raise OSError(38, "the 32-bit interface answered something else")


@book.attack("seccomp")
def invite_a_tracer(_had: Any) -> None:
    try:
        prctl(0x5961_6D61, os.getppid())
    except OSError as error:
        if error.errno != 22:  # a kernel without Yama does not know it
            raise


def _parent_death_signal(_had: Any) -> int:
    found = bytearray(4)
    prctl(2, address_of(found))
    return int.from_bytes(found, "little")


@book.attack("seccomp", twin=_parent_death_signal)
def outlive_the_parent(_had: Any) -> None:
    prctl(1, 0)


@book.attack("capabilities", root=True)
def regain_capabilities(_had: Any) -> None:
    sets = bytearray(24)
    sets[0:8] = struct.pack("=II", 1 << 21, 1 << 21)
    syscall("capset", struct.pack("=Ii", 0x2008_0522, 0), sets)


@book.attack("capabilities", root=True)
def become_another_user(_had: Any) -> None:
    os.setuid(1)


@book.attack("seccomp")
def set_the_clock(_had: Any) -> None:
    reach("clock_settime", -1, None)


@book.attack("seccomp", root=True)
def reboot(_had: Any) -> None:
    reach("reboot", 0, 0, 0, None)


@book.attack("seccomp", root=True)
def host_name(_had: Any) -> None:
    socket.sethostname(socket.gethostname())


CASES = book.cases()
