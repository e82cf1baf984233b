"""Process attributes of POSIX: session, directory, umask, signal mask, user and group, and where Python's files are."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement

ROOT = 0


class PosixProcess(NamedTuple):
    """The layer that sets the umask, session, signal mask and working directory."""

    name: str = "process"

    def probe(self) -> LayerReport:
        """Always available."""
        return LayerReport(self.name, LayerState.ACTIVE, "umask, directory and session can be set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set them. The umask takes effect at once, for every thread."""
        done = [f"umask {wanted.umask:03o}"]
        os.umask(wanted.umask)
        if wanted.new_session:
            if os.getsid(0) != os.getpid():
                os.setsid()  # EPERM for a process group leader: only a forked process can leave its terminal
            elif _has_terminal():
                reason = "leads a session with a terminal"
                return LayerReport(self.name, LayerState.UNAVAILABLE, reason, "a fork before")
            import signal  # takes several milliseconds to load, and few confinements need it

            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            done.append("own session, no signal blocked")
        if wanted.working_directory is not None:
            os.chdir(wanted.working_directory)
            done.append("working directory set")
        return LayerReport(self.name, LayerState.ACTIVE, ", ".join(done))


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal: only then /dev/tty opens (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Privileges:
    """The layer that changes user and group irreversibly. setuid(2) and setgid(2) of root set all three ids at once."""

    name: str = "privileges"

    def probe(self) -> LayerReport:
        """Whether the process may change its user."""
        if os.geteuid() == ROOT:
            return LayerReport(self.name, LayerState.ACTIVE, "can become another user")
        return LayerReport(self.name, LayerState.UNAVAILABLE, f"runs as uid {os.geteuid()}", "root")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Drop supplementary groups, then the group, then the user: afterwards the others couldn't be changed."""
        target = wanted.run_as
        if target is None:
            return LayerReport(self.name, LayerState.DISABLED, f"stays uid {os.geteuid()}, as requested")
        wanted_ids = (target.uid, target.uid, target.gid, target.gid)
        if _ids() != wanted_ids:
            os.setgroups([])
            os.setgid(target.gid)
            os.setuid(target.uid)
        if _can_become_root():
            return LayerReport(self.name, LayerState.UNAVAILABLE, "the saved user is still root: end this process")
        if _ids() != wanted_ids:
            return LayerReport(self.name, LayerState.UNAVAILABLE, f"the kernel kept other ids: {_ids()}")
        return LayerReport(self.name, LayerState.ACTIVE, f"uid {target.uid}, gid {target.gid}")


def _ids() -> tuple[int, int, int, int]:
    return os.getuid(), os.geteuid(), os.getgid(), os.getegid()


def _can_become_root() -> bool:
    try:
        os.setuid(ROOT)
    except PermissionError:
        return False
    return True


def python_paths() -> tuple[str, ...]:
    """Absolute paths of the standard library, installed packages and Nyx. Other entries of `sys.path` don't count."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [os.path.dirname(os.__file__), os.path.join(here, "nyx_core"), os.path.join(here, "nyx_stream")]
    for entry in sys.path:
        installed = any(entry.startswith(prefix.rstrip("/") + "/lib") for prefix in prefixes)
        packages = os.path.basename(entry) in ("site-packages", "dist-packages")
        if os.path.isabs(entry) and (installed or packages):
            found.append(entry)
    return tuple(dict.fromkeys(path for path in found if os.path.exists(path)))
