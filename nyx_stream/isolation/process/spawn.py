"""Starts interpreters: for zygotes, and for workers on systems without zygotes."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress

import nyx_core
from nyx_stream.isolation.process.affinity import set_affinity
from nyx_stream.isolation.remote.host.backend import WorkerProcess
from nyx_stream.isolation.remote.wire.confinement import FRAMEWORK

FORK_IS_SAFE = sys.platform == "linux"
"""Elsewhere system libraries may not survive a fork without an exec (macOS), or it hasn't been tried."""

_WORKER = "nyx_stream.isolation.process.bootstrap"

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
# The folder of the framework may contain much else, so it is on the path for these two imports only.


def spawn(
    module: str, descriptor: int, *, output: int, errors: int, cpus: frozenset[int] | None
) -> "subprocess.Popen[bytes]":
    """Runs `main(descriptor, pid of this process)` of a module of the framework in a new interpreter.

    `output` and `errors` are its standard streams, `cpus` the processors that it runs on. Call it on the loop's thread:
    Linux ties the life of the process to the thread that made it.

    Raises:
        OSError: it can't be started, or not on all of `cpus`.
    """
    process = subprocess.Popen(  # noqa: S603  # this interpreter, with fixed arguments
        command(module, descriptor),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        cwd="/",
        pass_fds=(descriptor,),
        start_new_session=True,  # Ctrl-C in a terminal is for the host to handle
    )
    if cpus is not None:
        try:
            set_affinity(process.pid, cpus)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process


def command(module: str, descriptor: int) -> list[str]:
    """Returns the command of `spawn`: an isolated interpreter."""
    homes = [os.path.dirname(folder) for folder in (os.path.dirname(os.path.abspath(nyx_core.__file__)), FRAMEWORK)]
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    numbers = (str(descriptor), str(os.getpid()))
    return [sys.executable, "-I", "-X", "utf8", "-c", START, module, *numbers, *homes, *packages]


def environment() -> dict[str, str]:
    """Returns the environment that the interpreter itself needs.

    One malloc arena, because each reserves 64 MiB, which would count against the memory limit.
    """
    own = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
    return own | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


class FreshWorkers:
    """Does what `ZygoteClient` does with a new interpreter for each worker, where a fork without an exec isn't safe.

    Slower than a zygote: each worker imports the framework and shares no pages. A process is reaped only after it was
    killed, so its pid can't be reused before; that it ended on its own shows by its closed channel.
    """

    pid = None
    """There is no zygote, and nothing is made ahead: it would hold the memory of an interpreter, shared with none."""

    def __init__(self, cpus: frozenset[int] | None = None) -> None:
        self._cpus = cpus
        self._loop = asyncio.get_running_loop()
        self._last_number = 0
        self._running: dict[int, tuple[WorkerProcess, subprocess.Popen[bytes]]] = {}
        self._reaping: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Does nothing."""

    def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        channel, output, errors = descriptors
        child = spawn(_WORKER, channel, output=output, errors=errors, cpus=self._cpus)
        self._last_number += 1
        process = WorkerProcess(self._last_number, self._kill)
        process.started.set_result(child.pid)
        self._running[process.number] = (process, child)
        return process

    async def aclose(self) -> None:
        for number in tuple(self._running):
            self._kill(number)
        if self._reaping:
            await asyncio.wait(tuple(self._reaping))

    def _kill(self, number: int) -> None:
        found = self._running.pop(number, None)
        if found is None:
            return
        process, child = found
        with suppress(ProcessLookupError):
            child.kill()
        task = self._loop.create_task(self._reap(process, child), name=f"nyx:reap:{child.pid}")
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def _reap(self, process: WorkerProcess, child: "subprocess.Popen[bytes]") -> None:
        process.ended.set_result(await asyncio.to_thread(child.wait))
