"""The host's end of its zygote: starts it when it is first needed, and again when it has died. Knows no plugin.

Everything runs on the event loop's thread, the start of the zygote too: the kernel ties the zygote's life to the
thread that made it.
"""

import asyncio
import errno
import logging
import os
import socket
import subprocess
from collections import deque

from pydantic import ValidationError

from nyx_stream.isolation.process.launcher import WorkerProcess, spawn
from nyx_stream.isolation.process.zygote_messages import MAX_PACKET, REPORT, Exited, Fork, Forked, Kill, NotForked
from nyx_stream.isolation.remote.host.output import Output
from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler

_log = logging.getLogger("nyx.zygote")

_MAIN = "nyx_stream.isolation.process.zygote"
_PATIENCE = 5.0
"""Seconds that the zygote gets to end by itself."""


class ZygoteClient:
    """The zygote of one host, and its workers with it on the processors `cpus`, or on any. A `Launcher`."""

    def __init__(self, cpus: frozenset[int] | None = None) -> None:
        self._cpus = cpus
        self._zygote: _Zygote | None = None
        self._numbers = 0

    @property
    def pid(self) -> int | None:
        """Process id of the zygote that is running, if one is."""
        return self._zygote.pid if self._zygote is not None and self._zygote.alive else None

    async def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        """Makes a worker with this channel, standard output and standard error. The descriptors stay the caller's.

        Raises:
            OSError: the zygote cannot be started, or cannot fork.
        """
        if self._zygote is None or not self._zygote.alive:
            if self._zygote is not None:
                await self._zygote.aclose()
            self._zygote = _Zygote(self._cpus)
        process = self._fork(self._zygote, descriptors)
        try:
            await asyncio.shield(process.forked)
        except asyncio.CancelledError:
            process.kill()
            raise
        return process

    def begin(self, descriptors: tuple[int, int, int]) -> WorkerProcess | None:
        """As `Launcher.begin`; `None` if no zygote runs."""
        if self._zygote is None or not self._zygote.alive:
            return None
        process = self._fork(self._zygote, descriptors)
        process.forked.add_done_callback(_retrieved)
        return process

    def _fork(self, zygote: "_Zygote", descriptors: tuple[int, int, int]) -> WorkerProcess:
        self._numbers += 1
        return zygote.fork(self._numbers, descriptors)

    async def aclose(self) -> None:
        """Ends the zygote, and with it every worker that is left."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.aclose()


class _Zygote:
    """One zygote process, from its start to its end."""

    def __init__(self, cpus: frozenset[int] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, WorkerProcess] = {}
        self._queue: deque[tuple[int, bytes, tuple[int, ...]]] = deque()
        self.alive = True
        self._link, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        errors, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = spawn(_MAIN, remote.fileno(), output=subprocess.DEVNULL, errors=theirs, cpus=cpus)
        except OSError:
            os.close(errors)
            self._link.close()
            raise
        finally:
            os.close(theirs)
            remote.close()
        self._errors = Output(errors, lambda line: _log.error("%s", line), FairScheduler())
        self._loop.add_reader(self._link, self._readable)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, number: int, descriptors: tuple[int, ...]) -> WorkerProcess:
        process = self._workers[number] = WorkerProcess(number, self._kill)
        # Copies: what is queued must survive the caller's closing of its own.
        self._send(number, Fork(worker=number).encode(), tuple(os.dup(descriptor) for descriptor in descriptors))
        return process

    async def aclose(self) -> None:
        self._gone()
        try:
            await asyncio.to_thread(self._process.wait, _PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._errors.drain()
        self._errors.close()

    def _kill(self, number: int) -> None:
        if self.alive:
            self._send(number, Kill(worker=number).encode(), ())

    def _send(self, number: int, packet: bytes, descriptors: tuple[int, ...]) -> None:
        self._queue.append((number, packet, descriptors))
        if len(self._queue) == 1:
            self._writable()
            if self._queue and self.alive:
                self._loop.add_writer(self._link, self._writable)

    def _writable(self) -> None:
        while self._queue:
            number, packet, descriptors = self._queue[0]
            try:
                socket.send_fds(self._link, [packet], descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self._gone()
                    return
                # Workers of this user take no descriptors (unix(7)): there is no such worker, and the others live on.
                self._take(NotForked(worker=number, errno=error.errno))
            self._queue.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._link)

    def _readable(self) -> None:
        try:
            packet = self._link.recv(MAX_PACKET)
            if packet:
                self._take(REPORT.validate_json(packet))
                return
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValidationError) as error:
            _log.error("the zygote cannot be understood: %s", error)
        self._gone()

    def _take(self, report: Forked | NotForked | Exited) -> None:
        process = self._workers.get(report.worker)
        if process is None:
            return
        if isinstance(report, Forked):
            process.forked.set_result(report.pid)
        elif isinstance(report, NotForked):
            del self._workers[report.worker]
            process.ended.set_result(None)
            process.forked.set_exception(OSError(report.errno, os.strerror(report.errno)))
        else:
            del self._workers[report.worker]
            process.ended.set_result(report.status)

    def _gone(self) -> None:
        """The link is over: the workers have died with the zygote, or are about to."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()
        for _, _, descriptors in self._queue:
            _close_all(descriptors)
        self._queue.clear()
        for process in self._workers.values():
            process.ended.set_result(None)
            if not process.forked.done():
                process.forked.set_exception(OSError("the zygote ended"))
                process.forked.exception()  # retrieved: whoever launched it may have given up
        self._workers.clear()


def _retrieved(forked: "asyncio.Future[int]") -> None:
    """That no process could be made, whoever wants it will find out; if nobody does, nobody needs to know."""
    if not forked.cancelled():
        forked.exception()


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
