"""Which system calls a confinement refuses, as rules per name. Pure: decides, and installs nothing.

Every group says which axis it closes. What Landlock mediates is left to Landlock, unless `Situation` says that it
does not cover this process: then the rules here stand in, as far as a filter without paths can.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.seccomp_filter import ALLOW, NO_SUCH_CALL, Arm, Rule, Test, refuse
from nyx_core.linux.seccomp_mark import mark_arms, mark_of

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement, Network

REFUSED = Rule(refuse(errno.EPERM))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


KERNEL = _names("""
    ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease
    io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd add_key
    request_key keyctl name_to_handle_at open_by_handle_at fanotify_init fanotify_mark
    lookup_dcookie lsm_set_self_attr init_module finit_module delete_module create_module kexec_load
    kexec_file_load reboot mount umount2 pivot_root chroot move_mount open_tree open_tree_attr
    fsopen fsconfig fsmount fspick mount_setattr statmount listmount listns unshare setns quotactl
    quotactl_fd swapon swapoff acct settimeofday clock_settime clock_adjtime adjtimex sethostname
    setdomainname syslog iopl ioperm modify_ldt uselib vhangup _sysctl sysfs nfsservctl
    migrate_pages move_pages
""")
"""Ways to the kernel's own machinery or into other processes: refused to every confined process."""

NEW_PROCESS = _names("""
    fork vfork execve execveat
""")

OTHER_PROCESSES = _names("""
    pidfd_open pidfd_send_signal msgget msgsnd msgrcv msgctl semget semop semtimedop semctl shmget
    shmat shmctl shmdt mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
""")

METADATA = _names("""
    chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    file_setattr mknod mknodat memfd_create memfd_secret
""")
"""Changes of files that no Landlock right covers (ABI 7), whether by path or by a descriptor opened for reading."""

TREE = _names("""
    creat truncate mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat
    unlink unlinkat
""")
"""Changes by path, all of them, for a process that may write nowhere."""

CLONE_THREAD = 0x0001_0000
NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; NEWTIME is for clone3 and unshare alone
PROT_EXEC = 4
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_SEQPACKET, SOCK_TYPE_BITS = 1, 5, 0xF
IPPROTO_DEFAULT, IPPROTO_TCP = 0, 6
MSG_FASTOPEN = 0x2000_0000
TCP_ULP = 31
OPEN_WRITES = (
    0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000
)  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE without O_DIRECTORY
O_TRUNC, O_ACCMODE = 0o1000, 0o3
S_IFMT, S_IFREG, S_IFIFO, S_IFSOCK = 0o170000, 0o100000, 0o010000, 0o140000

TERMINAL_IOCTLS = (0x5412, 0x541C, 0x541D, 0x5423)  # TIOCSTI and TIOCLINUX type into it; TIOCCONS, TIOCSETD
OWNER_IOCTLS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP: who gets SIGIO, and so a signal to anyone
ATTRIBUTE_IOCTLS = (
    0x4008_6602,  # FS_IOC_SETFLAGS
    0x4004_6602,  # FS_IOC32_SETFLAGS
    0x401C_5820,  # FS_IOC_FSSETXATTR
    0x4008_7602,  # FS_IOC_SETVERSION
    0x4080_6685,  # FS_IOC_ENABLE_VERITY
    0x800C_6613,  # FS_IOC_SET_ENCRYPTION_POLICY
)
OWNER_FCNTLS = (8, 10, 15, 1024)  # F_SETOWN, F_SETSIG, F_SETOWN_EX; F_SETLEASE stalls whoever opens the file
PR_SET_PTRACER = 0x5961_6D61  # Yama: invites a tracer
PR_SET_PDEATHSIG = 1  # whoever started this process set it: it must not outlive its parent
PER_QUERY = 0xFFFF_FFFF  # personality(2): only ask


class Situation(NamedTuple):
    """What the rules depend on beside the confinement.

    Attributes:
        pid: this process; rules that name it hold only where it cannot fork.
        landlock: Landlock ABI that covers every thread of this process, 0 if none does.
    """

    pid: int
    landlock: int


class Shape(NamedTuple):
    """All of a confinement that the rules depend on, but for the mark. The names are those of `Confinement`."""

    network: Network
    subprocess: bool
    native_code: bool
    ipc: bool
    writes_restricted: bool
    writable: bool
    """Whether anything is."""

    @classmethod
    def of(cls, wanted: Confinement) -> Shape:
        """Read it off a confinement."""
        return cls(
            wanted.network,
            wanted.subprocess,
            wanted.native_code,
            wanted.ipc,
            wanted.writes_restricted,
            bool(wanted.writable),
        )


def rules_for(wanted: Confinement, here: Situation) -> dict[str, Rule]:
    """Every rule of this confinement, by system call name. What is not named is allowed."""
    return marked_rules(Shape.of(wanted), here, mark_of(wanted, here.pid))


def marked_rules(shape: Shape, here: Situation, mark: tuple[int, ...]) -> dict[str, Rule]:
    """The rules of every confinement of this shape, under that mark."""
    return _shaped(shape, here) | {"prctl": _prctl(shape, mark)}


def _prctl(wanted: Shape, mark: tuple[int, ...]) -> Rule:
    # A process that may fork can leave its parent anyway, and its children may want to go with it.
    options = (PR_SET_PTRACER,) if wanted.subprocess else (PR_SET_PTRACER, PR_SET_PDEATHSIG)
    shut = Arm((Test(0, options),), refuse(errno.EPERM))
    return Rule(ALLOW, (shut, *mark_arms(mark)))


def _shaped(wanted: Shape, here: Situation) -> dict[str, Rule]:
    rules = dict.fromkeys(KERNEL, REFUSED)
    rules |= _kernel_arguments(wanted, here)
    rules |= _processes(wanted)
    rules |= _network(wanted.network)
    if not wanted.ipc:
        rules |= _other_processes(wanted, here)
    if wanted.writes_restricted:
        rules |= _files(wanted, here)
    if not wanted.native_code:
        executable = Rule(ALLOW, (Arm((Test(2, (PROT_EXEC,), PROT_EXEC),), refuse(errno.EPERM)),))
        rules |= dict.fromkeys(("mmap", "mprotect", "pkey_mprotect"), executable)
    return rules


def _only(*tests: Test) -> Rule:
    """Allowed if every test holds."""
    return Rule(refuse(errno.EPERM), (Arm(tests, ALLOW),))


def _but(argument: int, values: tuple[int, ...], bits: int = 0xFFFF_FFFF) -> Rule:
    """Refused if the argument is one of the values."""
    return Rule(ALLOW, (Arm((Test(argument, values, bits),), refuse(errno.EPERM)),))


def _kernel_arguments(wanted: Shape, here: Situation) -> dict[str, Rule]:
    own = (0, here.pid) if not wanted.subprocess else (0,)
    attributes = ATTRIBUTE_IOCTLS if wanted.writes_restricted else ()
    first = _only(Test(0, own))
    return {
        "personality": _only(Test(0, (PER_QUERY,))),
        "ioctl": _but(1, TERMINAL_IOCTLS + OWNER_IOCTLS + attributes),
        "fcntl": _but(1, OWNER_FCNTLS),
        "prlimit64": first,
        "sched_setparam": first,
        "sched_setscheduler": first,
        "sched_setattr": first,
        "sched_setaffinity": first,
        "get_robust_list": first,
        "setpriority": _only(Test(0, (0,)), Test(1, own)),  # PRIO_PROCESS
        "ioprio_set": _only(Test(0, (1,)), Test(1, own)),  # IOPRIO_WHO_PROCESS
        "mknod": _only(Test(1, (0, S_IFREG, S_IFIFO, S_IFSOCK), S_IFMT)),
        "mknodat": _only(Test(2, (0, S_IFREG, S_IFIFO, S_IFSOCK), S_IFMT)),
    }


def _processes(wanted: Shape) -> dict[str, Rule]:
    # A filter cannot read the structure that clone3 points to. ENOSYS makes the C library fall back to clone.
    rules = {"clone3": NO_SUCH_CALL}
    if wanted.subprocess:
        return rules | {"clone": _only(Test(0, (0,), NEW_NAMESPACES))}
    thread = _only(Test(0, (CLONE_THREAD,), CLONE_THREAD | NEW_NAMESPACES))
    return rules | dict.fromkeys(NEW_PROCESS, REFUSED) | {"clone": thread}


def _other_processes(wanted: Shape, here: Situation) -> dict[str, Rule]:
    rules = dict.fromkeys(OTHER_PROCESSES, REFUSED)
    if wanted.subprocess:
        return rules  # the pids of children are not known here; Landlock keeps signals inside the domain
    own = _only(Test(0, (here.pid,)))
    # tkill names a thread, and only the first thread's number is known: musl's raise() in other threads fails.
    return rules | dict.fromkeys(("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"), own)


def _network(network: Network) -> dict[str, Rule]:
    if network.sockets == "unrestricted":
        return {}
    # A datagram socket, a pair too, can be sent and connected elsewhere; these two kinds cannot.
    pair = _only(Test(0, (AF_UNIX,)), Test(1, (SOCK_STREAM, SOCK_SEQPACKET), SOCK_TYPE_BITS))
    # MSG_FASTOPEN connects without passing Landlock's hook for connect, or any rule for connect(2); a socket that was
    # inherited or passed, too, once its peer has reset it. TCP_ULP can turn TCP into SMC, which that hook never sees.
    upper = (Test(1, (IPPROTO_TCP,)), Test(2, (TCP_ULP,)))
    rules = {
        "socketpair": pair,
        "sendmsg": _but(2, (MSG_FASTOPEN,), MSG_FASTOPEN),
        "sendmmsg": _but(3, (MSG_FASTOPEN,), MSG_FASTOPEN),
        "setsockopt": Rule(ALLOW, (Arm(upper, refuse(errno.EPERM)),)),
    }
    if network.sockets == "none":
        unaddressed = _only(Test(4, (0,)), Test(4, (0,), high=True))
        shut = dict.fromkeys(("socket", "connect", "bind", "listen"), REFUSED)
        return rules | shut | {"sendto": unaddressed}
    tcp = _only(
        Test(0, (AF_INET, AF_INET6)),
        Test(1, (SOCK_STREAM,), SOCK_TYPE_BITS),
        Test(2, (IPPROTO_DEFAULT, IPPROTO_TCP)),
    )
    rules |= {"socket": tcp, "sendto": _but(3, (MSG_FASTOPEN,), MSG_FASTOPEN)}
    if not network.bind:
        rules |= {"listen": REFUSED}  # listen(2) without bind(2) takes a free port, and Landlock does not see it
    return rules


def _files(wanted: Shape, here: Situation) -> dict[str, Rule]:
    rules = dict.fromkeys(METADATA, REFUSED)
    if not wanted.writable:
        rules |= dict.fromkeys(TREE, REFUSED)
    if here.landlock == 0:
        return rules | {
            "open": _only(Test(1, (0,), OPEN_WRITES)),
            "openat": _only(Test(2, (0,), OPEN_WRITES)),
            "openat2": NO_SUCH_CALL,
        }
    if here.landlock < 3:  # no right to truncate: an open that only reads could still empty a file
        truncating = Arm((Test(1, (O_TRUNC,), O_TRUNC | O_ACCMODE),), refuse(errno.EPERM))
        at = Arm((Test(2, (O_TRUNC,), O_TRUNC | O_ACCMODE),), refuse(errno.EPERM))
        rules |= {"open": Rule(ALLOW, (truncating,)), "openat": Rule(ALLOW, (at,))}
        rules |= {"truncate": REFUSED, "openat2": NO_SUCH_CALL}
    return rules
