"""Keeps one worker ahead: forked, sealed as far as possible without its plugin, and waiting for its order.

See `isolation.process` for what that saves.
"""

import asyncio
import os
import socket

from nyx_stream.isolation.process.spawn import FreshWorkers
from nyx_stream.isolation.process.zygote_client import ZygoteClient
from nyx_stream.isolation.remote.host.backend import WorkerProcess

_REFILL_DELAY = 0.002
"""Seconds after a start before the next worker is made, so that the caller's next step isn't delayed."""

_KILL_TIMEOUT = 5.0
"""Seconds that a killed process gets to end."""


class PooledSlot:
    """A `WorkerSlot` on this machine: a socketpair, two pipes, and a process at their other ends."""

    def __init__(self, processes: ZygoteClient | FreshWorkers) -> None:
        self._processes = processes
        self.channel, self._their_channel = socket.socketpair()
        self.output, self._their_output = os.pipe()
        self.errors, self._their_errors = os.pipe()
        self._ahead: WorkerProcess | None = None

    def launch_ahead(self) -> bool:
        """Has the process made without waiting for it; returns whether that is possible. Otherwise close the slot."""
        self._ahead = self._processes.launch_ahead(self._theirs())
        self._close_theirs()
        return self._ahead is not None

    async def process(self) -> WorkerProcess:
        """As `WorkerSlot.process`."""
        if self._ahead is None:
            try:
                return await self._processes.launch(self._theirs())
            finally:
                self._close_theirs()
        try:
            await asyncio.shield(self._ahead.started)
        except asyncio.CancelledError:
            self._ahead.kill()
            raise
        return self._ahead

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
        if self._ahead is not None:
            self._ahead.kill()
        return self._ahead

    def _theirs(self) -> tuple[int, int, int]:
        return self._their_channel.fileno(), self._their_output, self._their_errors

    def _close_theirs(self) -> None:
        self._their_channel.close()
        os.close(self._their_output)
        os.close(self._their_errors)


class WarmPool:
    """A `WorkerLauncher` with one process in reserve. Used on the event loop's thread only."""

    def __init__(self, processes: ZygoteClient | FreshWorkers) -> None:
        self._processes = processes
        self.waiting: PooledSlot | None = None
        """The slot whose process was made ahead."""
        self._starting = 0
        self._refill: asyncio.TimerHandle | None = None

    def acquire(self) -> PooledSlot:
        """As `WorkerLauncher.acquire`: returns the slot that was made ahead, if there is one."""
        self._starting += 1
        self._cancel_refill()
        slot, self.waiting = self.waiting, None
        if slot is not None and slot.dead:
            slot.close()
            slot = None
        return slot or PooledSlot(self._processes)

    def start_finished(self, *, refill: bool) -> None:
        """As `WorkerLauncher.start_finished`. Unless another start begins first, the next worker is made soon."""
        self._starting -= 1
        if refill and not self._starting and self._refill is None and self.waiting is None:
            self._refill = asyncio.get_running_loop().call_later(_REFILL_DELAY, self._make)

    async def aclose(self) -> None:
        """Ends the worker in reserve, and every other process that is left."""
        self._cancel_refill()
        slot, self.waiting = self.waiting, None
        process = slot.close() if slot is not None else None
        if process is not None:
            await asyncio.wait((process.ended,), timeout=_KILL_TIMEOUT)
        await self._processes.aclose()

    def _make(self) -> None:
        self._refill = None
        try:
            slot = PooledSlot(self._processes)
        except OSError:  # no free descriptors: the next plugin that needs them reports it
            return
        if slot.launch_ahead():
            self.waiting = slot
        else:
            slot.close()

    def _cancel_refill(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
