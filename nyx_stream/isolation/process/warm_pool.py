"""A worker made ahead: forked, sealed as far as can be without knowing its plugin, and waiting for its order.

The next plugin gets it, and so waits neither for a fork nor for what every worker does first. One per host. Knows no
plugin, and nothing of how a process is made.
"""

import asyncio
import os
import socket

from nyx_stream.isolation.process.launcher import Launcher, WorkerProcess

_PAUSE = 0.002
"""Seconds after a start before the next worker is made: what the caller does first is worth more."""

_PATIENCE = 5.0
"""Seconds that a killed process gets to be gone."""


class WorkerSlot:
    """The host's ends of one worker's descriptors, and the way to its process. `channel`, `output`, `errors` are open.

    What was put into `channel` before the process was made waits for it there.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.channel, self._theirs = socket.socketpair()
        self.output, self._their_output = os.pipe()
        self.errors, self._their_errors = os.pipe()
        self._begun: WorkerProcess | None = None

    def begin(self) -> bool:
        """Has the process made, without waiting for it; returns whether that is possible. If not, close the berth."""
        self._begun = self._launcher.begin((self._theirs.fileno(), self._their_output, self._their_errors))
        self._close_theirs()
        return self._begun is not None

    async def process(self) -> WorkerProcess:
        """Returns the process, once there is one. Raises `OSError` if none can be made. To be called once."""
        if self._begun is None:
            try:
                return await self._launcher.launch((self._theirs.fileno(), self._their_output, self._their_errors))
            finally:
                self._close_theirs()
        try:
            await asyncio.shield(self._begun.forked)
        except asyncio.CancelledError:
            self._begun.kill()
            raise
        return self._begun

    @property
    def deserted(self) -> bool:
        """Whether the process at the other end is gone, or could not be made. It sends nothing before its order."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> WorkerProcess | None:
        """Closes what is open and kills the process, which is returned if there is one. Nobody has taken this berth."""
        self.channel.close()
        os.close(self.output)
        os.close(self.errors)
        if self._begun is not None:
            self._begun.kill()
        return self._begun

    def _close_theirs(self) -> None:
        self._theirs.close()
        os.close(self._their_output)
        os.close(self._their_errors)


class WarmPool:
    """Keeps one berth whose process waits. All of it is called on the event loop's thread."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._waiting: WorkerSlot | None = None
        self._starting = 0
        self._refill: asyncio.TimerHandle | None = None

    def take(self) -> WorkerSlot:
        """Returns a berth, the one that was made ahead if there is one. It is the caller's; `done` must follow."""
        self._starting += 1
        self._rest()
        berth, self._waiting = self._waiting, None
        if berth is not None and berth.deserted:
            berth.close()
            berth = None
        return berth or WorkerSlot(self._launcher)

    def done(self, *, refill: bool) -> None:
        """A start is over. Unless another begins first, the next worker is made soon, if `refill`."""
        self._starting -= 1
        if refill and not self._starting and self._refill is None and self._waiting is None:
            self._refill = asyncio.get_running_loop().call_later(_PAUSE, self._make)

    async def aclose(self) -> None:
        """Ends the worker that waits."""
        self._rest()
        berth, self._waiting = self._waiting, None
        process = berth.close() if berth is not None else None
        if process is not None:
            await asyncio.wait((process.ended,), timeout=_PATIENCE)

    def _make(self) -> None:
        self._refill = None
        try:
            berth = WorkerSlot(self._launcher)
        except OSError:  # no descriptor is left: the plugin that wants one will say so
            return
        if berth.begin():
            self._waiting = berth
        else:
            berth.close()

    def _rest(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
