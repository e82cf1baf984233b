"""What a process does before it is a worker, or the zygote that workers are forked from."""

import asyncio
import gc
import importlib
import mimetypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from nyx_core.sandbox import Confinement, Network, probe
from nyx_stream.isolation.remote.wire.confinement import CHANNEL
from nyx_stream.isolation.remote.wire.frames import FrameKind
from nyx_stream.isolation.remote.wire.messages import Order, Sealed, decode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.isolation.remote.worker import main as worker

LIBRARIES = (
    "aiofiles",
    "anyio._backends._asyncio",
    "email.parser",
    "httpx",
    "json",
    "nyx_core.sandbox",
    "nyx_stream.isolation.remote.worker.connect",
    "nyx_stream.isolation.remote.worker.files",
    "nyx_stream.isolation.remote.worker.http",
    "nyx_stream.policy.manifest_file",
)
"""Modules that workers are likely to use. One that isn't installed is skipped."""

STACK_SIZE = 512 * 1024
"""Bytes of a thread's stack. The system's 8 MiB would count against the memory limit at once."""

_PR_SET_PDEATHSIG = 1
_READ = 4096
_HERE = os.path.dirname(os.path.abspath(__file__))
_CONFINEMENT = Confinement(readable=("/nonexistent",), network=Network.none(), new_session=True, working_directory="/")
_MEMORY = 2**27


def main(descriptor: int, host: int) -> NoReturn:
    """Runs a worker that wasn't forked from a zygote. Never returns.

    Args:
        descriptor: its channel.
        host: pid of its host.
    """

    def run() -> int:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with_parent(host, signal.SIGKILL)
        import_libraries()
        if descriptor != CHANNEL:
            os.dup2(descriptor, CHANNEL)
            os.close(descriptor)
        return worker.main(socket.socket(fileno=CHANNEL))

    run_and_exit(run)


def run_and_exit(run: Callable[[], int]) -> NoReturn:
    """Calls `run` and ends the process with the status that it returns, or with 1 and a traceback.

    Nothing else runs in the process afterwards: no `finally`, no `atexit` handler.
    """
    status = 1
    try:
        status = run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Has the kernel signal this process when `parent` ends: prctl(2), PR_SET_PDEATHSIG.

    Ends this process at once if `parent` has already ended. The kernel watches the thread that made this process, not
    the whole parent. Systems other than Linux rely on the closed socket instead.

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform != "linux":
        return
    from nyx_core.linux.libc import prctl

    prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os._exit(1)


def import_libraries() -> None:
    """Imports and sets what every worker needs before it is sealed."""
    for module in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(module)
    mimetypes.init()  # reads the system's tables, which a sealed worker may not
    threading.stack_size(STACK_SIZE)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # text streams of this process


def warm_up() -> None:
    """Runs a worker with a sample plugin from order to end, without sealing the process. Leaves nothing behind.

    Afterwards bytecode is specialised, caches are filled, and pages that a worker writes to have been copied.
    """
    collecting = gc.isenabled()
    order = Order(
        plugin="sample", entry="sample_plugin:Sample", folder=_HERE, root=_HERE, names=frozenset({"sample_plugin"}),
        places={}, env={}, confinement=_CONFINEMENT, memory=_MEMORY, setup_timeout=1.0,
    )  # fmt: skip
    host, connection = ProtocolConnection("host"), ProtocolConnection("worker")
    (opening,) = connection.receive(host.send(FrameKind.ORDER, body=order.encode()))
    decode(Order, opening)
    order.confinement.digest()
    _compile_layers(order.confinement)
    report = Sealed(report=probe().to_dict(), baseline=0).encode()
    host.receive(connection.send(FrameKind.SEALED, body=report))
    ours, theirs = socket.socketpair()
    loop = asyncio.new_event_loop()
    sample = worker.Worker(order, connection, ours, loop)
    loop.add_reader(theirs, _play_host, theirs, host)  # not a task: a stopping worker cancels all tasks but its own
    theirs.sendall(host.send(FrameKind.START))
    try:
        loop.run_until_complete(sample.run())
    finally:
        sample.forget()
        loop.remove_reader(theirs)
        theirs.close()
        loop.close()
        if not collecting:
            gc.disable()


def _play_host(sock: socket.socket, host: ProtocolConnection) -> None:
    """Calls a method once the plugin is ready, and stops it when it has the result."""
    for frame in host.receive(sock.recv(_READ)):
        if frame.kind is FrameKind.READY:
            sock.sendall(host.send(FrameKind.CALL, 1, 0, b'{"number": 1}'))
        elif frame.kind is FrameKind.RESULT:
            sock.sendall(host.send(FrameKind.STOP))


def _compile_layers(confinement: Confinement) -> None:
    """Computes rules and compiles a filter, as the layers do."""
    if sys.platform != "linux":
        return
    from nyx_core.linux.landlock_rules import NEWEST_ABI, ruleset_for
    from nyx_core.linux.seccomp_mark import Program
    from nyx_core.linux.seccomp_rules import SeccompRequest, Situation, rules_for
    from nyx_core.linux.syscall_table import native_table
    from nyx_core.posix.process import python_paths

    ruleset_for(confinement, NEWEST_ABI, python_paths())
    table = native_table()
    if table is not None:
        Program.compile(table, rules_for(SeccompRequest.of(confinement), Situation(pid=1, landlock=NEWEST_ABI)))
