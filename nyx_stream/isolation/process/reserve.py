"""A worker made ahead: forked, sealed as far as can be without knowing its plugin, and waiting for its order.

The next plugin gets it, and so waits neither for a fork nor for what every worker does first. One per host. Knows no
plugin, and nothing of how a process is made.
"""

import asyncio
import os
import socket
from contextlib import suppress

from nyx_stream.isolation.process.launching import Launcher, WorkerProcess

_PAUSE = 0.002
"""Seconds after a start before the next worker is made: what the caller does first is worth more."""

_PATIENCE = 5.0
"""Seconds that a killed process gets to be gone."""


class Berth:
    """The host's ends of one worker's descriptors, and the way to its process. `channel`, `output`, `errors` are open.

    What was put into `channel` before the process was made waits for it there.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.channel, self._theirs = socket.socketpair()
        self.output, self._their_output = os.pipe()
        self.errors, self._their_errors = os.pipe()
        self._ahead: asyncio.Task[WorkerProcess] | None = None

    def make_ahead(self) -> None:
        """Has the process made, without waiting for it."""
        self._ahead = asyncio.get_running_loop().create_task(self._launch(), name="nyx:reserve")
        self._ahead.add_done_callback(_retrieved)

    async def process(self) -> WorkerProcess:
        """Returns the process, once there is one. Raises `OSError` if none can be made. To be called once."""
        return await (self._ahead or self._launch())

    @property
    def deserted(self) -> bool:
        """Whether the process at the other end is gone, or could not be made. It sends nothing before its order."""
        if self._ahead is not None and self._ahead.done() and (self._ahead.cancelled() or self._ahead.exception()):
            return True
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def abandon(self) -> None:
        """Closes what is open and ends the process. Nobody has taken this berth."""
        self.channel.close()
        os.close(self.output)
        os.close(self.errors)
        if self._ahead is not None:
            with suppress(OSError):
                process = await self._ahead
                process.kill()
                await asyncio.wait((process.ended,), timeout=_PATIENCE)

    async def _launch(self) -> WorkerProcess:
        try:
            return await self._launcher.launch((self._theirs.fileno(), self._their_output, self._their_errors))
        finally:
            self._theirs.close()
            os.close(self._their_output)
            os.close(self._their_errors)


class Reserve:
    """Keeps one berth whose process waits. All of it is called on the event loop's thread."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._waiting: Berth | None = None
        self._starting = 0
        self._refill: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def take(self) -> Berth:
        """Returns a berth, the one that was made ahead if there is one. It is the caller's; `done` must follow."""
        self._starting += 1
        self._rest()
        berth, self._waiting = self._waiting, None
        if berth is not None and berth.deserted:
            self._abandon(berth)
            berth = None
        return berth or Berth(self._launcher)

    def done(self, *, refill: bool) -> None:
        """A start is over. Unless another begins first, the next worker is made soon, if `refill`."""
        self._starting -= 1
        if refill and self._launcher.ahead and not self._starting and self._refill is None and self._waiting is None:
            self._refill = asyncio.get_running_loop().call_later(_PAUSE, self._make)

    async def aclose(self) -> None:
        """Ends the worker that waits."""
        self._rest()
        berth, self._waiting = self._waiting, None
        if berth is not None:
            await berth.abandon()
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))

    def _make(self) -> None:
        self._refill = None
        self._waiting = Berth(self._launcher)
        self._waiting.make_ahead()

    def _rest(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None

    def _abandon(self, berth: Berth) -> None:
        task = asyncio.get_running_loop().create_task(berth.abandon(), name="nyx:abandon")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _retrieved(task: "asyncio.Task[WorkerProcess]") -> None:
    """That no process could be made ahead, whoever takes the berth will find out."""
    if not task.cancelled():
        task.exception()
