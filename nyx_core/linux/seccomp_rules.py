"""Which system calls a confinement refuses, as rules per name. Pure functions.

Each group says which axis it closes. What Landlock mediates is left to Landlock. If Landlock doesn't cover this
process, according to `Situation`, the rules here stand in, as far as a filter that can't see paths allows.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.seccomp_filter import ALLOW, NO_SUCH_CALL, WORD, ArgumentMatch, Arm, Rule, refuse

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement, Network

EPERM = refuse(errno.EPERM)
REFUSED = Rule(EPERM)


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
"""Access to kernel facilities or to other processes: refused to every confined process."""

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
"""Changes to files that no Landlock right covers (ABI 7), by path or by a descriptor opened for reading."""

TREE = _names("""
    creat truncate mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat
    unlink unlinkat
""")
"""All changes by path, for a process that may not write anywhere."""

CLONE_THREAD = 0x0001_0000
NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; NEWTIME is for clone3 and unshare alone
PROT_EXEC = 4
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_SEQPACKET, SOCK_TYPE_BITS = 1, 5, 0xF
IPPROTO_DEFAULT, IPPROTO_TCP = 0, 6
MSG_FASTOPEN = 0x2000_0000
TCP_ULP = 31
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE without O_DIRECTORY
OPEN_WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000
O_TRUNC, O_ACCMODE = 0o1000, 0o3
S_IFMT, S_IFREG, S_IFIFO, S_IFSOCK = 0o170000, 0o100000, 0o010000, 0o140000

TERMINAL_IOCTLS = (0x5412, 0x541C, 0x541D, 0x5423)  # TIOCSTI and TIOCLINUX type into it; TIOCCONS, TIOCSETD
OWNER_IOCTLS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP: choose which process gets SIGIO
ATTRIBUTE_IOCTLS = (
    0x4008_6602,  # FS_IOC_SETFLAGS
    0x4004_6602,  # FS_IOC32_SETFLAGS
    0x401C_5820,  # FS_IOC_FSSETXATTR
    0x4008_7602,  # FS_IOC_SETVERSION
    0x4080_6685,  # FS_IOC_ENABLE_VERITY
    0x800C_6613,  # FS_IOC_SET_ENCRYPTION_POLICY
)
# F_SETOWN, F_SETSIG, F_SETOWN_EX; F_SETLEASE blocks other processes that open the file
OWNER_FCNTLS = (8, 10, 15, 1024)
PR_SET_PTRACER = 0x5961_6D61  # Yama: allows a process to trace this one
PR_SET_PDEATHSIG = 1  # set by the parent, so that this process doesn't outlive it
PER_QUERY = 0xFFFF_FFFF  # personality(2): only query


class Situation(NamedTuple):
    """What the rules depend on besides the confinement.

    Attributes:
        pid: this process; used in rules only if it can't fork.
        landlock: the Landlock ABI that covers every thread of this process, or 0.
    """

    pid: int
    landlock: int


class SeccompRequest(NamedTuple):
    """The part of a confinement that the rules depend on. Names are those of `Confinement`."""

    network: Network
    subprocess: bool
    native_code: bool
    ipc: bool
    writes_restricted: bool
    writable: bool
    """Whether any path is."""

    @classmethod
    def of(cls, wanted: Confinement) -> SeccompRequest:
        """The request of a confinement."""
        return cls(
            wanted.network,
            wanted.subprocess,
            wanted.native_code,
            wanted.ipc,
            wanted.writes_restricted,
            bool(wanted.writable),
        )


def rules_for(wanted: SeccompRequest, here: Situation) -> dict[str, Rule]:
    """The rules by system call name. Calls without a rule are allowed."""
    rules = dict.fromkeys(KERNEL, REFUSED)
    rules |= _kernel_arguments(wanted, here)
    rules |= _processes(wanted)
    rules |= _network(wanted.network)
    if not wanted.ipc:
        rules |= _other_processes(wanted, here)
    if wanted.writes_restricted:
        rules |= _files(wanted, here)
    if not wanted.native_code:
        rules |= dict.fromkeys(("mmap", "mprotect", "pkey_mprotect"), _except(2, (PROT_EXEC,), PROT_EXEC))
    return rules


def _only(*arguments: ArgumentMatch) -> Rule:
    """Allowed if every argument matches."""
    return Rule(EPERM, (Arm(arguments, ALLOW),))


def _except(argument: int, values: tuple[int, ...], bits: int = WORD) -> Rule:
    """Refused if the argument is one of the values."""
    return Rule(ALLOW, (Arm((ArgumentMatch(argument, values, bits),), EPERM),))


def _kernel_arguments(wanted: SeccompRequest, here: Situation) -> dict[str, Rule]:
    own = (0, here.pid) if not wanted.subprocess else (0,)
    attributes = ATTRIBUTE_IOCTLS if wanted.writes_restricted else ()
    first = _only(ArgumentMatch(0, own))
    # A process that may fork can leave its parent anyway, and its children may want to end with it.
    options = (PR_SET_PTRACER,) if wanted.subprocess else (PR_SET_PTRACER, PR_SET_PDEATHSIG)
    return {
        "prctl": _except(0, options),
        "personality": _only(ArgumentMatch(0, (PER_QUERY,))),
        "ioctl": _except(1, TERMINAL_IOCTLS + OWNER_IOCTLS + attributes),
        "fcntl": _except(1, OWNER_FCNTLS),
        "prlimit64": first,
        "sched_setparam": first,
        "sched_setscheduler": first,
        "sched_setattr": first,
        "sched_setaffinity": first,
        "get_robust_list": first,
        "setpriority": _only(ArgumentMatch(0, (0,)), ArgumentMatch(1, own)),  # PRIO_PROCESS
        "ioprio_set": _only(ArgumentMatch(0, (1,)), ArgumentMatch(1, own)),  # IOPRIO_WHO_PROCESS
        "mknod": _only(ArgumentMatch(1, (0, S_IFREG, S_IFIFO, S_IFSOCK), S_IFMT)),
        "mknodat": _only(ArgumentMatch(2, (0, S_IFREG, S_IFIFO, S_IFSOCK), S_IFMT)),
    }


def _processes(wanted: SeccompRequest) -> dict[str, Rule]:
    # A filter cannot read the structure that clone3 points to. ENOSYS makes the C library fall back to clone.
    rules = {"clone3": NO_SUCH_CALL}
    if wanted.subprocess:
        return rules | {"clone": _only(ArgumentMatch(0, (0,), NEW_NAMESPACES))}
    thread = _only(ArgumentMatch(0, (CLONE_THREAD,), CLONE_THREAD | NEW_NAMESPACES))
    return rules | dict.fromkeys(NEW_PROCESS, REFUSED) | {"clone": thread}


def _other_processes(wanted: SeccompRequest, here: Situation) -> dict[str, Rule]:
    rules = dict.fromkeys(OTHER_PROCESSES, REFUSED)
    if wanted.subprocess:
        return rules  # the pids of children are unknown here; Landlock keeps signals inside the domain
    own = _only(ArgumentMatch(0, (here.pid,)))
    # tkill takes a thread, and only the first thread's number is known: musl's raise() in other threads fails.
    return rules | dict.fromkeys(("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"), own)


def _network(network: Network) -> dict[str, Rule]:
    if network.sockets == "unrestricted":
        return {}
    # A datagram socket, even of a pair, can send and connect elsewhere; these two types can't.
    pair = _only(ArgumentMatch(0, (AF_UNIX,)), ArgumentMatch(1, (SOCK_STREAM, SOCK_SEQPACKET), SOCK_TYPE_BITS))
    # MSG_FASTOPEN connects without Landlock's hook for connect and without connect(2), also on an inherited or passed
    # socket that its peer has reset. TCP_ULP can turn TCP into SMC, which has no such hook.
    upper = (ArgumentMatch(1, (IPPROTO_TCP,)), ArgumentMatch(2, (TCP_ULP,)))
    rules = {
        "socketpair": pair,
        "sendmsg": _except(2, (MSG_FASTOPEN,), MSG_FASTOPEN),
        "sendmmsg": _except(3, (MSG_FASTOPEN,), MSG_FASTOPEN),
        "setsockopt": Rule(ALLOW, (Arm(upper, EPERM),)),
    }
    if network.sockets == "none":
        unaddressed = _only(ArgumentMatch(4, (0,)), ArgumentMatch(4, (0,), high=True))
        shut = dict.fromkeys(("socket", "connect", "bind", "listen"), REFUSED)
        return rules | shut | {"sendto": unaddressed}
    tcp = _only(
        ArgumentMatch(0, (AF_INET, AF_INET6)),
        ArgumentMatch(1, (SOCK_STREAM,), SOCK_TYPE_BITS),
        ArgumentMatch(2, (IPPROTO_DEFAULT, IPPROTO_TCP)),
    )
    rules |= {"socket": tcp, "sendto": _except(3, (MSG_FASTOPEN,), MSG_FASTOPEN)}
    if not network.bind:
        rules |= {"listen": REFUSED}  # listen(2) without bind(2) takes a free port, which Landlock doesn't mediate
    return rules


def _files(wanted: SeccompRequest, here: Situation) -> dict[str, Rule]:
    rules = dict.fromkeys(METADATA, REFUSED)
    if not wanted.writable:
        rules |= dict.fromkeys(TREE, REFUSED)
    if here.landlock == 0:
        return rules | {
            "open": _only(ArgumentMatch(1, (0,), OPEN_WRITES)),
            "openat": _only(ArgumentMatch(2, (0,), OPEN_WRITES)),
            "openat2": NO_SUCH_CALL,
        }
    if here.landlock < 3:  # without a right to truncate, an open for reading could empty a file
        rules |= {"open": _except(1, (O_TRUNC,), O_TRUNC | O_ACCMODE)}
        rules |= {"openat": _except(2, (O_TRUNC,), O_TRUNC | O_ACCMODE)}
        rules |= {"truncate": REFUSED, "openat2": NO_SUCH_CALL}
    return rules
