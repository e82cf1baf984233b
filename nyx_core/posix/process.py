"""What a process inherits beside descriptors: session, working directory, umask, signal mask. Knows no one OS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement


class Process(NamedTuple):
    """The layer."""

    name: str = "process"

    def probe(self) -> LayerReport:
        """Nothing can be missing."""
        return LayerReport(self.name, LayerState.ACTIVE, "umask, directory and session can be set")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Set them. The umask takes effect at once, for every thread."""
        done = [f"umask {wanted.umask:03o}"]
        os.umask(wanted.umask)
        if wanted.new_session:
            if os.getsid(0) != os.getpid():
                os.setsid()  # EPERM for the leader of a process group: only a forked process can leave its terminal
            elif _has_terminal():
                return LayerReport(
                    self.name, LayerState.UNAVAILABLE, "leads a session with a terminal", "a fork before"
                )
            import signal  # costs several milliseconds, and few ask for this

            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            done.append("own session, no signal blocked")
        if wanted.working_directory is not None:
            os.chdir(wanted.working_directory)
            done.append("working directory set")
        return LayerReport(self.name, LayerState.ACTIVE, ", ".join(done))


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal: /dev/tty opens only then (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
