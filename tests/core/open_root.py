"""Starts a program as an ordinary user, even on a host whose `/` only root may enter.

On such a host it makes a mount namespace with a new root that everyone may enter and that has the same directories. The
namespace disappears when the program ends.
"""

import os
import sys

from nyx_core.linux.libc import syscall

NEW_NS = 0x0002_0000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x4_0000
DETACH = 2


def main() -> None:
    """Arguments: uid, a scratch directory, the program and its arguments."""
    uid, scratch, *program = sys.argv[1:]
    here = os.getcwd()
    if os.stat("/").st_mode & 0o5 != 0o5:
        _new_root(f"{scratch}/root")
    os.chdir(here)
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.execv(program[0], program)


def _new_root(root: str) -> None:
    syscall("unshare", NEW_NS)
    syscall("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    os.mkdir(root)
    syscall("mount", b"tmpfs", root.encode(), b"tmpfs", 0, b"mode=755")
    for entry in os.scandir("/"):
        inside = f"{root}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), inside)
        elif entry.is_dir():
            os.mkdir(inside)
            syscall("mount", entry.path.encode(), inside.encode(), None, BIND | RECURSIVE, None)
    os.chdir(root)
    syscall("pivot_root", b".", b".")
    syscall("umount2", b".", DETACH)
