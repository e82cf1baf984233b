"""The zygote: a warm process that workers are forked from. Single-threaded, with blocking I/O only.

It is the parent of its workers. It reaps them, and when its host goes, by closed socket or by signal, it kills them all
and ends. It never runs a plugin's code. Host and zygote exchange one JSON text per packet of a SOCK_SEQPACKET socket.
See `isolation.process` for how they work together.
"""

import errno
import gc
import os
import select
import signal
import socket
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Literal

from nyx_stream.isolation.process.bootstrap import die_with_parent, import_libraries, run_and_exit, warm_up
from nyx_stream.isolation.remote.wire.confinement import CHANNEL
from nyx_stream.isolation.remote.wire.messages import Message
from nyx_stream.isolation.remote.worker import main as worker

MAX_PACKET = 4096
"""Bytes of a packet."""

_DESCRIPTORS = 3
_WARM_UPS = 3
"""Some bytecode is specialised only when it runs again."""


def main(descriptor: int, host: int) -> None:
    """Serves the host with pid `host` at the other end of the socket `descriptor`, until the host ends."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the host to handle
    die_with_parent(host, signal.SIGTERM)
    import_libraries()
    for _ in range(_WARM_UPS):
        warm_up()
    # Hides all objects from the collector, which would write to each of their pages and so copy it in every worker.
    gc.collect()
    gc.freeze()
    gc.disable()  # until a worker is ready: nothing that it creates before is garbage
    with socket.socket(fileno=descriptor) as link:
        Zygote(link).serve()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


class ZygoteRequest(Message):
    """Host: make or kill a worker. With "fork" come three descriptors: channel, standard output, standard error."""

    action: Literal["fork", "kill"]
    worker: int


class ZygoteReport(Message):
    """Zygote: a worker was forked (`value` is its pid), couldn't be forked (an errno of fork(2)), or was reaped.

    A worker that was reaped has an exit status as `value`, or the negated number of a signal.
    """

    event: Literal["forked", "fork_failed", "exited"]
    worker: int
    value: int


class Zygote:
    """Forks, kills and reaps workers as one host requests."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._workers: dict[int, int] = {}
        """pid by worker."""
        self._wakeup_reader, self._wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Returns when the host has closed its end. However it ends, it kills every worker that is left."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wakeup_reader, select.POLLIN)
        try:
            serving = True
            while serving:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._wakeup_reader in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wakeup_reader, 4096)
                    self._reap()
                if self._link.fileno() in ready:
                    serving = self._handle_request()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the host is gone
        finally:
            for pid in self._workers.values():
                os.kill(pid, signal.SIGKILL)

    def _handle_request(self) -> bool:
        """Handles one request; returns False at the end of the socket."""
        packet, descriptors, _, _ = socket.recv_fds(self._link, MAX_PACKET, _DESCRIPTORS)
        if not packet:
            return False
        request = ZygoteRequest.model_validate_json(packet)
        if request.action == "fork":
            self._fork(request.worker, descriptors)
        elif request.worker in self._workers:
            os.kill(self._workers[request.worker], signal.SIGKILL)
        return True

    def _fork(self, number: int, descriptors: list[int]) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._report("fork_failed", number, error.errno or errno.EAGAIN)
        else:
            if pid == 0:
                run_and_exit(partial(self._run_worker, zygote, descriptors))
            self._workers[number] = pid
            self._report("forked", number, pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _run_worker(self, zygote: int, descriptors: list[int]) -> int:
        """Runs in the forked process, which must not continue as a zygote."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(zygote, signal.SIGKILL)
        self._link.close()
        channel, output, errors = descriptors
        null = os.open(os.devnull, os.O_RDONLY)
        # In this order no descriptor is overwritten before it is copied: 0 to 2 were open before these arrived.
        for source, target in ((null, 0), (output, 1), (errors, 2), (channel, CHANNEL)):
            os.dup2(source, target)
        return worker.main(socket.socket(fileno=CHANNEL), warm_up)

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
                self._report("exited", number, os.waitstatus_to_exitcode(status))

    def _report(self, event: Literal["forked", "fork_failed", "exited"], number: int, value: int) -> None:
        self._link.send(ZygoteReport(event=event, worker=number, value=value).encode())
