"""The host's end of its zygote: starts it when it is first needed, and again after it has died.

Everything runs on the event loop's thread, also starting the zygote: the kernel ties the zygote's life to the thread
that made it.
"""

import asyncio
import errno
import logging
import os
import socket
import subprocess
from collections import deque

from pydantic import ValidationError

from nyx_stream.isolation.process.spawn import spawn
from nyx_stream.isolation.process.zygote import MAX_PACKET, ZygoteReport, ZygoteRequest
from nyx_stream.isolation.remote.host.backend import WorkerProcess
from nyx_stream.isolation.remote.host.log import Output
from nyx_stream.isolation.remote.wire.channel import FairScheduler, close_all

_log = logging.getLogger("nyx.zygote")

_ZYGOTE = "nyx_stream.isolation.process.zygote"
_STOP_TIMEOUT = 5.0
"""Seconds that the zygote gets to end on its own."""


class ZygoteClient:
    """Makes workers by forking the zygote of one host, on the processors `cpus` or on any."""

    def __init__(self, cpus: frozenset[int] | None = None) -> None:
        self._cpus = cpus
        self._zygote: _ZygoteProcess | None = None
        self._last_number = 0

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, if one is running: only then does making a worker ahead take little."""
        return self._zygote.pid if self._zygote is not None and self._zygote.alive else None

    async def prepare(self) -> None:
        """Starts the zygote, unless it is running. Raises `OSError` if it can't be started."""
        if self._zygote is not None and not self._zygote.alive:
            await self.aclose()
        if self._zygote is None:
            self._zygote = _ZygoteProcess(self._cpus)

    def launch(self, descriptors: tuple[int, int, int]) -> WorkerProcess:
        """Begins to make a worker with this channel, standard output and standard error; `started` tells how that went.

        The zygote must be running. The descriptors stay the caller's.
        """
        if self._zygote is None:
            raise OSError("no zygote was started")
        self._last_number += 1
        return self._zygote.fork(self._last_number, descriptors)

    async def aclose(self) -> None:
        """Ends the zygote, and with it every worker that is left."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.aclose()


class _ZygoteProcess:
    """One zygote, from start to end."""

    def __init__(self, cpus: frozenset[int] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, WorkerProcess] = {}
        self._queue: deque[tuple[int, bytes, tuple[int, ...]]] = deque()
        self.alive = True
        self._link, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        errors, their_errors = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = spawn(_ZYGOTE, remote.fileno(), output=subprocess.DEVNULL, errors=their_errors, cpus=cpus)
        except OSError:
            os.close(errors)
            self._link.close()
            raise
        finally:
            os.close(their_errors)
            remote.close()
        self._errors = Output(errors, lambda line: _log.error("%s", line), FairScheduler())
        self._loop.add_reader(self._link, self._readable)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, number: int, descriptors: tuple[int, ...]) -> WorkerProcess:
        process = self._workers[number] = WorkerProcess(number, self._kill)
        # Duplicates, because the caller may close its own before the packet is sent.
        self._send(
            number, ZygoteRequest(action="fork", worker=number).encode(), tuple(os.dup(item) for item in descriptors)
        )
        return process

    async def aclose(self) -> None:
        self._disconnect()
        try:
            await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._errors.drain()
        self._errors.close()

    def _kill(self, number: int) -> None:
        if self.alive:
            self._send(number, ZygoteRequest(action="kill", worker=number).encode(), ())

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
                    self._disconnect()
                    return
                # Too many descriptors of this user are in flight (unix(7)): only this worker can't be made.
                self._handle_report(ZygoteReport(event="fork_failed", worker=number, value=error.errno))
            self._queue.popleft()
            close_all(descriptors)
        self._loop.remove_writer(self._link)

    def _readable(self) -> None:
        try:
            packet = self._link.recv(MAX_PACKET)
            if packet:
                self._handle_report(ZygoteReport.model_validate_json(packet))
                return
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValidationError) as error:
            _log.error("the zygote sent an invalid packet, or its socket failed: %s", error)
        self._disconnect()

    def _handle_report(self, report: ZygoteReport) -> None:
        process = self._workers.get(report.worker)
        if process is None:
            return
        if report.event == "forked":
            process.started.set_result(report.value)
            return
        del self._workers[report.worker]
        if report.event == "fork_failed":
            process.fail(OSError(report.value, os.strerror(report.value)))
        else:
            process.ended.set_result(report.value)

    def _disconnect(self) -> None:
        """Closes the socket. The workers have died with the zygote, or are about to."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()
        for _, _, descriptors in self._queue:
            close_all(descriptors)
        self._queue.clear()
        for process in self._workers.values():
            process.fail(OSError("the zygote ended"))
        self._workers.clear()
