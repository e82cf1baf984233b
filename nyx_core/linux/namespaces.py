"""Enters new namespaces: user, mount, pid, net. Optional. unshare(2), user_namespaces(7).

Without privileges a process can create only a user namespace, and the others inside it. The user namespace maps only
the current user.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.linux.libc import syscall
from nyx_core.sandbox.report import LayerReport, LayerState, errno_name

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

FLAGS = {"user": 0x1000_0000, "mount": 0x0002_0000, "pid": 0x2000_0000, "net": 0x4000_0000}
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
MAX_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"
REMEDIES = {
    errno.EPERM: "CAP_SYS_ADMIN, or unprivileged user namespaces (kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0)",
    errno.EINVAL: "confine before any thread starts: a process with threads enters no user namespace",
    errno.ENOSPC: "sysctl user.max_user_namespaces above 0",
    errno.ENOSYS: "a kernel with CONFIG_NAMESPACES",
}


class Namespaces(NamedTuple):
    """The layer."""

    name: str = "namespaces"

    def probe(self) -> LayerReport:
        """Whether the kernel has them and lets users create them. Only creating one would prove it."""
        missing = [name for name in ("user", "mnt", "pid", "net") if not os.path.exists(f"/proc/self/ns/{name}")]
        if missing:
            reason, remedy = f"the kernel lacks: {', '.join(missing)}", "CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_PID_NS"
            return LayerReport(self.name, LayerState.UNAVAILABLE, reason, remedy)
        try:
            with open(MAX_USER_NAMESPACES, encoding="ascii") as limit:
                maximum = int(limit.read())
        except OSError:
            maximum = -1
        if maximum == 0:
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"{MAX_USER_NAMESPACES} is 0", REMEDIES[errno.ENOSPC])
        return LayerReport(self.name, LayerState.ACTIVE, "built in", facts=(("max_user_namespaces", str(maximum)),))

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Unshare the requested namespaces, map the current user, and stop mount propagation."""
        if not wanted.namespaces:
            return LayerReport(self.name, LayerState.DISABLED, "none requested")
        names = sorted(wanted.namespaces)
        uid, gid = os.geteuid(), os.getegid()
        try:
            syscall("unshare", sum(FLAGS[name] for name in names))
        except OSError as error:
            reason = f"unshare: {errno_name(error.errno)}"
            return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDIES.get(error.errno or 0, ""))
        if "user" in names:
            _write_map("setgroups", "deny")
            _write_map("uid_map", f"{uid} {uid} 1")
            _write_map("gid_map", f"{gid} {gid} 1")
        if "mount" in names:
            syscall("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        note = "; the pid namespace is for children only" if "pid" in names else ""
        return LayerReport(self.name, LayerState.ACTIVE, f"own {', '.join(names)}{note}")


def _write_map(name: str, text: str) -> None:
    descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
