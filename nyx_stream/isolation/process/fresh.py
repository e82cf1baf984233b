"""Workers without a zygote: each a fresh interpreter, for systems where a fork without an exec is not safe. Host side.

Slow (the interpreter starts, the framework is imported, no page is shared), and otherwise the same: the same channel,
the same protocol, the same worker. A process is waited for only once it was killed, so that its pid cannot have become
another's meanwhile; that it ended by itself, the closed channel tells.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from nyx_stream.isolation.process.launcher import WorkerProcess, spawn

if TYPE_CHECKING:
    import subprocess

_MAIN = "nyx_stream.isolation.process.fresh_worker"


class FreshWorkers:
    """The workers of one host, on the processors `cpus`, or on any. A `Launcher`."""

    def __init__(self, cpus: frozenset[int] | None = None) -> None:
        self._cpus = cpus
        self._loop = asyncio.get_running_loop()
        self._numbers = 0
        self._running: dict[int, tuple[WorkerProcess, subprocess.Popen[bytes]]] = {}
        self._reaping: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """`None`: workers are nobody's children but the host's."""
        return None

    async def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        """As `Launcher.launch`."""
        channel, output, errors = descriptors
        started = spawn(_MAIN, channel, output=output, errors=errors, cpus=self._cpus)
        self._numbers += 1
        process = WorkerProcess(self._numbers, self._kill)
        process.forked.set_result(started.pid)
        self._running[process.number] = (process, started)
        return process

    def begin(self, descriptors: tuple[int, int, int]) -> None:
        """Makes none: until it is wanted it would hold an interpreter's memory, shared with nobody."""

    async def aclose(self) -> None:
        """Kills every worker that is left, and waits for all of them."""
        for number in tuple(self._running):
            self._kill(number)
        if self._reaping:
            await asyncio.wait(tuple(self._reaping))

    def _kill(self, number: int) -> None:
        found = self._running.pop(number, None)
        if found is None:
            return
        process, started = found
        with suppress(ProcessLookupError):
            started.kill()
        task = self._loop.create_task(self._reap(process, started), name=f"nyx:reap:{started.pid}")
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def _reap(self, process: WorkerProcess, started: "subprocess.Popen[bytes]") -> None:
        process.ended.set_result(await asyncio.to_thread(started.wait))
