"""How processes for workers come about, seen from the host. Knows no plugin, and not how a worker is made.

`ZygoteClient` forks workers from a warm process; where that is not safe `FreshWorkers` starts an interpreter for each.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import nyx_core
from nyx_stream.isolation.process.placement import place
from nyx_stream.isolation.process.seal import FRAMEWORK

FORK_IS_SAFE = sys.platform == "linux"
"""Elsewhere the system's own libraries may not survive a fork without an exec (macOS), or nothing was tried."""

START = """\
import sys
own = sys.argv[4:6]
sys.path[:0] = own
import nyx_core, nyx_stream
del sys.path[:len(own)]
sys.path += [path for path in sys.argv[6:] if path not in sys.path]
from importlib import import_module
import_module(sys.argv[1]).main(int(sys.argv[2]), int(sys.argv[3]))
"""
# Where the framework lies may be a folder with much else in it: it is on the path for these two imports only.


class WorkerProcess:
    """The process of one worker, as its maker tells of it."""

    def __init__(self, number: int, kill: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.forked: asyncio.Future[int] = loop.create_future()
        """Its pid."""
        self.ended: asyncio.Future[int | None] = loop.create_future()
        """Exit status, a signal's number negated; `None` if nobody could tell. Sure to come only after `kill`."""
        self._kill = kill

    def kill(self) -> None:
        """Sends SIGKILL, if the process is still there, and has it reaped."""
        if not self.ended.done():
            self._kill(self.number)


class Launcher(Protocol):
    """Makes the workers of one host."""

    @property
    def pid(self) -> int | None:
        """Process id of what workers are forked from, if there is such a process."""

    async def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        """Makes a worker with this channel, standard output and standard error. The descriptors stay the caller's.

        Raises:
            OSError: no process can be made.
        """

    def begin(self, descriptors: tuple[int, int, int]) -> WorkerProcess | None:
        """Begins to make a worker that nobody wants yet. The descriptors stay the caller's.

        Returns:
            The process, whose `forked` is still to come, with the `OSError` if none can be made; `None` where it would
            cost too much, or could not be begun at once.
        """

    async def aclose(self) -> None:
        """Ends every worker that is left."""


def lacking() -> str:
    """What this system lacks to run a worker at all, sealed or not; empty where it lacks nothing."""
    if hasattr(socket, "AF_UNIX") and hasattr(socket, "SCM_RIGHTS") and hasattr(socket.socket, "sendmsg"):
        return ""
    return f"{sys.platform} has no Unix sockets that pass descriptors (SCM_RIGHTS); a worker gets its files by these"


def spawn(
    module: str, descriptor: int, *, output: int, errors: int, cpus: frozenset[int] | None
) -> "subprocess.Popen[bytes]":
    """Starts `main(descriptor, pid of this process)` of a module of the framework in an interpreter of its own.

    Runs on the loop's thread: Linux ties the life of the process to the thread that made it. `output` and `errors` are
    its standard streams; `cpus` the processors that it runs on.

    Raises:
        OSError: it cannot be started, or not there.
    """
    process = subprocess.Popen(  # noqa: S603  # this interpreter, with fixed arguments
        command(module, descriptor),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        cwd="/",
        pass_fds=(descriptor,),
        start_new_session=True,  # a terminal's Ctrl-C is the host's to handle
    )
    if cpus is not None:
        try:
            place(process.pid, cpus)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process


def command(module: str, descriptor: int) -> list[str]:
    """Returns the command that runs `main(descriptor, pid of this process)` of a module of the framework, isolated."""
    homes = [os.path.dirname(folder) for folder in (os.path.dirname(os.path.abspath(nyx_core.__file__)), FRAMEWORK)]
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    numbers = (str(descriptor), str(os.getpid()))
    return [sys.executable, "-I", "-X", "utf8", "-c", START, module, *numbers, *homes, *packages]


def environment() -> dict[str, str]:
    """What the interpreter itself needs. One arena: each would reserve 64 MiB of the memory of a grant."""
    own = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
    return own | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
