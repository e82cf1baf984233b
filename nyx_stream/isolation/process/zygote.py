"""The zygote: a warm process that workers fork from. Single-threaded; runs no code of any plugin.

It has imported the framework and the libraries that plugins share with it, so that a worker costs a fork, and its
pages are shared. It is the parent of the workers: it reaps them, and when its host goes, by closed socket or by
signal, it kills them all and ends. Blocking I/O only. Knows no plugin and no policy.
"""

import errno
import gc
import importlib
import mimetypes
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from types import FrameType

from nyx_stream.isolation.process.parent_death import die_with_parent, live
from nyx_stream.isolation.process.seal import CHANNEL
from nyx_stream.isolation.process.warmup import rehearse
from nyx_stream.isolation.process.zygote_messages import (
    MAX_PACKET,
    REQUEST,
    Exited,
    Fork,
    Forked,
    NotForked,
)
from nyx_stream.isolation.registry import REGISTRY
from nyx_stream.isolation.remote.worker import main as worker

WARM = (
    "aiofiles",
    "anyio._backends._asyncio",
    "email.parser",
    "httpx",
    "json",
    "nyx_core.sandbox",
    "nyx_stream.policy.manifest_file",
)
"""Modules that workers are likely to use. One that is not installed here is left out."""

STACK = 512 * 1024
"""Bytes of a thread's stack: the system's 8 MiB would count against the memory of the grant at once."""

_DESCRIPTORS = 3
_REHEARSALS = 3
"""Some bytecode is specialised the second time it runs."""


def main(descriptor: int, host: int) -> None:
    """Serves the host at the other end of the socket `descriptor`, until it is gone. `host` is its pid."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the host's to handle
    die_with_parent(host, signal.SIGTERM)
    warm()
    for _ in range(_REHEARSALS):
        rehearse()
    # Out of the collector's sight: it would write to every page of theirs, and each worker would get its own copy.
    gc.collect()
    gc.freeze()
    gc.disable()  # until a worker is ready: nothing of what it makes before is garbage
    with socket.socket(fileno=descriptor) as link:
        Zygote(link).serve()


def warm() -> None:
    """Imports and sets what every worker needs to have before it is sealed."""
    for module in WARM:
        with suppress(ImportError):
            importlib.import_module(module)
    for capability in REGISTRY.values():
        with suppress(ImportError):
            capability.preload()
    mimetypes.init()  # reads the system's tables, which a worker may not
    threading.stack_size(STACK)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # text streams of this process


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


class Zygote:
    """Forks, kills and reaps, as one host asks."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._workers: dict[int, int] = {}
        """pid by worker."""
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Returns when the host has closed its end; kills every worker that is left, whatever ends it."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            serving = True
            while serving:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._wake in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    self._reap()
                if self._link.fileno() in ready:
                    serving = self._take()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the host is gone
        finally:
            for pid in self._workers.values():
                os.kill(pid, signal.SIGKILL)

    def _take(self) -> bool:
        """Takes one request; returns whether there was one."""
        packet, descriptors, _, _ = socket.recv_fds(self._link, MAX_PACKET, _DESCRIPTORS)
        if not packet:
            return False
        request = REQUEST.validate_json(packet)
        if isinstance(request, Fork):
            self._fork(request.worker, descriptors)
        elif request.worker in self._workers:
            os.kill(self._workers[request.worker], signal.SIGKILL)
        return True

    def _fork(self, number: int, descriptors: list[int]) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._send(NotForked(worker=number, errno=error.errno or errno.EAGAIN))
        else:
            if pid == 0:
                live(partial(self._life, zygote, descriptors))
            self._workers[number] = pid
            self._send(Forked(worker=number, pid=pid))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _life(self, zygote: int, descriptors: list[int]) -> int:
        """The rest of the life of a forked process: nothing of the zygote may run in it."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(zygote, signal.SIGKILL)
        self._link.close()
        return worker.main(_placed(descriptors))

    def _reap(self) -> None:
        numbers = {pid: number for number, pid in self._workers.items()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = numbers.get(pid)
            if number is not None:
                del self._workers[number]
                self._send(Exited(worker=number, status=os.waitstatus_to_exitcode(status)))

    def _send(self, report: Forked | NotForked | Exited) -> None:
        self._link.send(report.encode())


def _placed(descriptors: list[int]) -> socket.socket:
    """Puts channel and standard streams where a worker has them; returns the channel."""
    channel, output, errors = descriptors
    null = os.open(os.devnull, os.O_RDONLY)
    # In this order nothing is overwritten before it is copied: 0 to 2 were open before the descriptors came.
    for source, target in ((null, 0), (output, 1), (errors, 2), (channel, CHANNEL)):
        os.dup2(source, target)
    return socket.socket(fileno=CHANNEL)
