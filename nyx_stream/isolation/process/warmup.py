"""What every worker does between its fork and its plugin, done once beforehand where it costs nobody time.

A forked process shares its pages with its parent until it writes to them, and Python writes even where it only reads
(reference counts, specialised bytecode). So the zygote rehearses, to have compiled and cached what can be; and a worker
that was made ahead rehearses again, to have its own copy of the pages that it is going to write to. Changes nothing
that lasts: no layer is applied, and no code but the framework's runs.
"""

import asyncio
import gc
import os
import socket
import sys

from nyx_core.sandbox import Confinement, Network, probe
from nyx_stream.isolation.remote.wire.frames import Frame, Kind
from nyx_stream.isolation.remote.wire.messages import Order, Sealed, decode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection
from nyx_stream.isolation.remote.worker.main import Worker

_CONFINEMENT = Confinement(readable=("/nonexistent",), network=Network.none(), new_session=True, working_directory="/")
_MEMORY = 2**27
_READ = 4096
_HERE = os.path.dirname(os.path.abspath(__file__))


def rehearse() -> None:
    """Goes once through everything but the acts."""
    collecting = gc.isenabled()
    order = Order(
        plugin="rehearsal", entry="sample:Sample", folder=_HERE, root=_HERE, names=frozenset({"sample"}), places={},
        env={}, confinement=_CONFINEMENT, memory=_MEMORY, setup_timeout=1.0,
    )  # fmt: skip
    host, connection = ProtocolConnection("host"), ProtocolConnection("worker")
    (opening,) = connection.receive(host.send(Frame(Kind.ORDER, body=order.encode())))
    decode(Order, opening)
    order.confinement.digest()
    _compile(order.confinement)
    report = Sealed(report=probe().to_dict(), baseline=0).encode()
    host.receive(connection.send(Frame(Kind.SEALED, body=report)))
    ours, theirs = socket.socketpair()
    loop = asyncio.new_event_loop()
    worker = Worker(order, connection, ours, loop)
    loop.add_reader(theirs, _answer, theirs, host)  # no task: the end of a plugin cancels every task but its own
    theirs.sendall(host.send(Frame(Kind.START)))
    try:
        loop.run_until_complete(worker.run())
    finally:
        worker.forget()
        loop.remove_reader(theirs)
        theirs.close()
        loop.close()
        if not collecting:
            gc.disable()


def _answer(sock: socket.socket, host: ProtocolConnection) -> None:
    """Plays the host: calls a method once the sample is ready, and stops it when the result is there."""
    for frame in host.receive(sock.recv(_READ)):
        if frame.kind is Kind.READY:
            sock.sendall(host.send(Frame(Kind.CALL, 1, 0, b'{"number": 1}')))
        elif frame.kind is Kind.RESULT:
            sock.sendall(host.send(Frame(Kind.STOP)))


def _compile(confinement: Confinement) -> None:
    """Decides on rules and compiles a filter, as the layers will."""
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
