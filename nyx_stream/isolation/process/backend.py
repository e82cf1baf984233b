"""Level `process`: each plugin in its own sealed process, with one worker kept ahead.

The worker ahead is forked, sealed as far as possible without its plugin, and waits for its order. See
`isolation.process` for what that saves.
"""

import asyncio
import os
import socket

from nyx_stream.isolation.capability_set import Shared
from nyx_stream.isolation.process.spawn import FORK_IS_SAFE, FreshWorkers
from nyx_stream.isolation.process.zygote_client import ZygoteClient
from nyx_stream.isolation.remote.host.backend import RemoteBackend, WorkerProcess
from nyx_stream.isolation.remote.wire.channel import close_all

_REFILL_DELAY = 0.002
"""Seconds after a start before the next worker is made, so that the caller's next step isn't delayed."""

_KILL_TIMEOUT = 5.0
"""Seconds that a killed process gets to end."""


class PooledSlot:
    """A `WorkerSlot` on this machine: a socketpair, two pipes, and a process at their other ends."""

    def __init__(self, processes: ZygoteClient | FreshWorkers) -> None:
        self._processes = processes
        self.channel, self._their_channel = socket.socketpair()
        self.output, their_output = os.pipe()
        self.errors, their_errors = os.pipe()
        self._their_pipes = their_output, their_errors
        self._process: WorkerProcess | None = None

    def launch(self) -> WorkerProcess:
        try:
            self._process = self._processes.launch((self._their_channel.fileno(), *self._their_pipes))
        finally:
            self._close_theirs()
        return self._process

    async def process(self) -> WorkerProcess:
        process = self._process
        if process is None:
            try:
                await self._processes.prepare()
            except BaseException:
                self._close_theirs()
                raise
            process = self.launch()
        try:
            await asyncio.shield(process.started)
        except asyncio.CancelledError:
            process.kill()
            raise
        return process

    @property
    def dead(self) -> bool:
        """Whether the process has ended, or couldn't be made. It sends nothing before its order."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> WorkerProcess | None:
        """Closes a slot that isn't used and kills its process, which it returns if there is one."""
        self.channel.close()
        os.close(self.output)
        os.close(self.errors)
        if self._process is not None:
            self._process.kill()
        return self._process

    def _close_theirs(self) -> None:
        self._their_channel.close()
        close_all(self._their_pipes)


class WarmPool:
    """A `WorkerLauncher` with one process in reserve. Used on the event loop's thread only."""

    def __init__(self, processes: ZygoteClient | FreshWorkers) -> None:
        self._processes = processes
        self.waiting: PooledSlot | None = None
        """The slot whose process was made ahead."""
        self._starting = 0
        self._refill: asyncio.TimerHandle | None = None

    def acquire(self) -> PooledSlot:
        self._starting += 1
        self._cancel_refill()
        slot, self.waiting = self.waiting, None
        if slot is not None and slot.dead:
            slot.close()
            slot = None
        return slot or PooledSlot(self._processes)

    def start_finished(self, *, refill: bool) -> None:
        self._starting -= 1
        if refill and not self._starting and self._refill is None and self.waiting is None:
            self._refill = asyncio.get_running_loop().call_later(_REFILL_DELAY, self._make)

    async def aclose(self) -> None:
        self._cancel_refill()
        slot, self.waiting = self.waiting, None
        process = slot.close() if slot is not None else None
        if process is not None:
            await asyncio.wait((process.ended,), timeout=_KILL_TIMEOUT)
        await self._processes.aclose()

    def _make(self) -> None:
        self._refill = None
        if self._processes.pid is None:
            return
        try:
            slot = PooledSlot(self._processes)
        except OSError:  # no free descriptors: the next plugin that needs them reports it
            return
        slot.launch()
        self.waiting = slot

    def _cancel_refill(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None


class ProcessBackend(RemoteBackend):
    """Runs plugins in sealed processes, on the processors `cpus` or on any. One per host."""

    def __init__(self, *, shared: Shared, cpus: frozenset[int] | None = None) -> None:
        self.processes = ZygoteClient(cpus) if FORK_IS_SAFE else FreshWorkers(cpus)
        super().__init__(WarmPool(self.processes), shared)
