"""Kernel facilities and other processes. Unconfined, each attack gets to the kernel. Twin: the process itself."""

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
from tests.escape.kernel.attack import AttackList, Inherited, call_kernel, computing

AT_FDCWD = -100
SIGCHLD = 17
NEW_NS, NEW_USER, NEW_NET = 0x0002_0000, 0x1000_0000, 0x4000_0000
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
TIOCSTI = 0x5412
X32 = 0x4000_0000
YAMA = "kernel.yama.ptrace_scope may forbid it"
SECRET = bytearray(b"of the parent")  # the same address in the parent, which forked this process

attacks = AttackList("Kernel", computing)


@attacks.add("seccomp", may_fail_unconfined=YAMA)
def ptrace(_inherited: Any) -> None:
    syscall("ptrace", PTRACE_SEIZE, os.getppid(), None, None)
    os.kill(os.getppid(), 0)


def _io_vectors() -> tuple[bytes, bytes, bytearray]:
    target = bytearray(len(SECRET))
    local = struct.pack("=QQ", address_of(target), len(target))
    return local, struct.pack("=QQ", address_of(SECRET), len(SECRET)), target


@attacks.add("seccomp", may_fail_unconfined=YAMA)
def process_vm_readv(_inherited: Any) -> None:
    local, remote, _target = _io_vectors()
    syscall("process_vm_readv", os.getppid(), local, 1, remote, 1, 0)


@attacks.add("seccomp", may_fail_unconfined=YAMA)
def process_vm_writev(_inherited: Any) -> None:
    local, remote, target = _io_vectors()
    target[:] = SECRET
    syscall("process_vm_writev", os.getppid(), local, 1, remote, 1, 0)


@attacks.add("seccomp")
def pidfd_open(_inherited: Any) -> None:
    os.close(os.pidfd_open(os.getppid()))


def _parent_pidfd() -> Inherited:
    os.dup2(os.pidfd_open(os.getppid()), 9)
    return Inherited(9, (9,))


@attacks.add("seccomp", setup=_parent_pidfd, may_fail_unconfined=YAMA)
def pidfd_getfd(inherited: Any) -> None:
    os.close(syscall("pidfd_getfd", inherited.value, 0, 0))


@attacks.add("seccomp", setup=_parent_pidfd)
def pidfd_send_signal(inherited: Any) -> None:
    signal.pidfd_send_signal(inherited.value, 0)


@attacks.add("seccomp", may_fail_unconfined=YAMA)
def kcmp(_inherited: Any) -> None:
    syscall("kcmp", os.getpid(), os.getppid(), 1, 0, 0)


def _signal_self(_inherited: Any) -> None:
    os.kill(os.getpid(), 0)
    signal.raise_signal(signal.SIGCHLD)


@attacks.add("seccomp", twin=_signal_self)
def kill_the_host(_inherited: Any) -> None:
    os.kill(os.getppid(), 0)


@attacks.add("seccomp", twin=_signal_self)
def kill_a_group(_inherited: Any) -> None:
    os.kill(-os.getpgid(os.getppid()), 0)


@attacks.add("seccomp", twin=_signal_self)
def tgkill_the_host(_inherited: Any) -> None:
    syscall("tgkill", os.getppid(), os.getppid(), 0)


@attacks.add("seccomp", twin=_signal_self)
def tkill_the_host(_inherited: Any) -> None:
    syscall("tkill", os.getppid(), 0)


@attacks.add("seccomp", twin=_signal_self)
def sigqueue_the_host(_inherited: Any) -> None:
    info = bytearray(128)
    info[8:12] = struct.pack("=i", -1)  # SI_QUEUE
    syscall("rt_sigqueueinfo", os.getppid(), 0, info)


@attacks.add("seccomp", setup=lambda: Inherited(os.dup2(os.pipe()[0], 9), (9,)))
def signal_through_a_descriptor_owner(inherited: Any) -> None:
    fcntl.fcntl(inherited.value, fcntl.F_SETOWN, os.getppid())


def _own_limits(_inherited: Any) -> None:
    resource.prlimit(0, resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@attacks.add("seccomp", twin=_own_limits)
def prlimit_of_the_host(_inherited: Any) -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)


@attacks.add("seccomp", twin=lambda _inherited: os.sched_setaffinity(0, os.sched_getaffinity(0)))
def affinity_of_the_host(_inherited: Any) -> None:
    os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))


@attacks.add("seccomp")
def priority_of_the_host(_inherited: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid()))


@attacks.add("seccomp")
def io_uring_setup(_inherited: Any) -> None:
    os.close(syscall("io_uring_setup", 1, bytearray(120)))


@attacks.add("seccomp")
def io_uring_enter(_inherited: Any) -> None:
    call_kernel("io_uring_enter", -1, 0, 0, 0, None, 0)


@attacks.add("seccomp")
def io_uring_register(_inherited: Any) -> None:
    call_kernel("io_uring_register", -1, 0, None, 0)


@attacks.add("seccomp", may_fail_unconfined="user namespaces may be switched off")
def user_namespace_by_unshare(_inherited: Any) -> None:
    syscall("unshare", NEW_USER)


@attacks.add("seccomp", may_fail_unconfined="user namespaces may be switched off")
def user_namespace_by_clone(_inherited: Any) -> None:
    child = syscall("clone", NEW_USER | SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attacks.add("seccomp", root=True)
def unshare_the_network(_inherited: Any) -> None:
    syscall("unshare", NEW_NET)


@attacks.add("seccomp")
def setns(_inherited: Any) -> None:
    call_kernel("setns", -1, 0)


@attacks.add("seccomp")
def mount(_inherited: Any) -> None:
    call_kernel("mount", b"none", b"data/nowhere", b"tmpfs", 0, None)


@attacks.add("seccomp")
def umount(_inherited: Any) -> None:
    call_kernel("umount2", b"data/nowhere", 0)


@attacks.add("seccomp", root=True)
def new_mount_api(_inherited: Any) -> None:
    os.close(syscall("fsopen", b"tmpfs", 0))


@attacks.add("seccomp", root=True)
def open_tree(_inherited: Any) -> None:
    os.close(syscall("open_tree", AT_FDCWD, b"data", 1))


@attacks.add("seccomp", root=True)
def move_mount(_inherited: Any) -> None:
    call_kernel("move_mount", -1, b"", -1, b"", 0)


@attacks.add("seccomp", root=True)
def fsmount(_inherited: Any) -> None:
    call_kernel("fsmount", -1, 0, 0)


@attacks.add("seccomp")
def mount_setattr(_inherited: Any) -> None:
    call_kernel("mount_setattr", -1, b"", 0, None, 0)


@attacks.add("seccomp", root=True)
def chroot(_inherited: Any) -> None:
    os.chroot("/")


@attacks.add("seccomp", root=True)
def pivot_root(_inherited: Any) -> None:
    call_kernel("pivot_root", b"data/nowhere", b"data/nowhere")


@attacks.add("seccomp", may_fail_unconfined="kernel.unprivileged_bpf_disabled may be set")
def bpf(_inherited: Any) -> None:
    call_kernel("bpf", 0, None, 0)


@attacks.add("seccomp")
def perf_event_open(_inherited: Any) -> None:
    call_kernel("perf_event_open", None, 0, 0, 0, 0)


@attacks.add("seccomp", root=True)
def userfaultfd(_inherited: Any) -> None:
    os.close(syscall("userfaultfd", 0))


@attacks.add("seccomp")
def keyctl(_inherited: Any) -> None:
    syscall("keyctl", 0, -2, 1)


@attacks.add("seccomp")
def add_key(_inherited: Any) -> None:
    syscall("add_key", b"user", b"nyx", b"x", 1, -2)


@attacks.add("seccomp")
def request_key(_inherited: Any) -> None:
    call_kernel("request_key", b"user", b"nyx-none", None, 0)


@attacks.add("seccomp", root=True)
def load_module(_inherited: Any) -> None:
    call_kernel("init_module", None, 0, b"")


@attacks.add("seccomp", root=True)
def kexec(_inherited: Any) -> None:
    call_kernel("kexec_load", 0, 0, None, 0)


@attacks.add("seccomp")
def personality(_inherited: Any) -> None:
    syscall("personality", 0x0004_0000)


@attacks.add("seccomp", root=True)
def fanotify(_inherited: Any) -> None:
    os.close(syscall("fanotify_init", 0, 0))


@attacks.add("seccomp")
def system_v_shared_memory(_inherited: Any) -> None:
    segment = syscall("shmget", 0, 4096, 0o1600)
    syscall("shmctl", segment, 0, None)


@attacks.add("seccomp")
def system_v_messages(_inherited: Any) -> None:
    queue = syscall("msgget", 0, 0o1600)
    syscall("msgctl", queue, 0, None)


@attacks.add("seccomp")
def posix_messages(_inherited: Any) -> None:
    call_kernel("mq_open", b"nyx-none", 0, 0, None)


def _terminal() -> Inherited:
    """A controlling terminal that stays open as a descriptor."""
    master, slave = pty.openpty()
    os.dup2(master, 8)  # its last descriptor closing would hang the terminal up
    os.setsid()
    fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    os.dup2(slave, 9)
    return Inherited(9, (8, 9))


@attacks.add("seccomp", setup=_terminal, twin=lambda inherited: os.isatty(inherited.value))
def type_into_the_terminal(inherited: Any) -> None:
    fcntl.ioctl(inherited.value, TIOCSTI, b"x")


@attacks.add("seccomp", setup=_terminal, twin=lambda inherited: os.isatty(inherited.value))
def type_into_the_terminal_with_bit_32(inherited: Any) -> None:
    syscall("ioctl", inherited.value, TIOCSTI | 1 << 32, b"x")


@attacks.add("seccomp", answers=("ENOSYS",))
def x32_numbers(_inherited: Any) -> None:
    syscall_number(X32 | 39)


def _machine_code() -> Any:
    """A page with `mov eax, 20; int 0x80; ret`: getpid of the 32-bit kernel interface."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return Inherited((page, call))


@attacks.add("seccomp", setup=_machine_code, killed=True)
def int_0x80(inherited: Any) -> None:
    if inherited.value[1]() != os.getpid():
        raise OSError(38, "the 32-bit interface answered something else")


@attacks.add("seccomp")
def invite_a_tracer(_inherited: Any) -> None:
    try:
        prctl(0x5961_6D61, os.getppid())
    except OSError as error:
        if error.errno != 22:  # a kernel without Yama does not know it
            raise


def _parent_death_signal(_inherited: Any) -> int:
    found = bytearray(4)
    prctl(2, address_of(found))
    return int.from_bytes(found, "little")


@attacks.add("seccomp", twin=_parent_death_signal)
def outlive_the_parent(_inherited: Any) -> None:
    prctl(1, 0)


@attacks.add("capabilities", root=True)
def regain_capabilities(_inherited: Any) -> None:
    sets = bytearray(24)
    sets[0:8] = struct.pack("=II", 1 << 21, 1 << 21)
    syscall("capset", struct.pack("=Ii", 0x2008_0522, 0), sets)


@attacks.add("capabilities", root=True)
def become_another_user(_inherited: Any) -> None:
    os.setuid(1)


@attacks.add("seccomp")
def set_the_clock(_inherited: Any) -> None:
    call_kernel("clock_settime", -1, None)


@attacks.add("seccomp", root=True)
def reboot(_inherited: Any) -> None:
    call_kernel("reboot", 0, 0, 0, None)


@attacks.add("seccomp", root=True)
def host_name(_inherited: Any) -> None:
    socket.sethostname(socket.gethostname())


CASES = attacks.cases()
