"""What every worker does between its fork and its plugin, done once beforehand where it costs nobody time.

A forked process shares its pages with its parent until it writes to them, and Python writes even where it only reads
(reference counts, specialised bytecode). So the zygote rehearses, to have compiled and cached what can be; and the
spare worker rehearses again, to have its own copy of the pages that it is going to write to. Changes nothing that
lasts: no layer is applied, and no code of a plugin runs.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from nyx_core.sandbox import Confinement, Network, probe
from nyx_stream.isolation.exports import Method, methods_of
from nyx_stream.isolation.modules import PluginModules
from nyx_stream.isolation.process.channel import Channel
from nyx_stream.isolation.process.frames import Frame, Kind
from nyx_stream.isolation.process.messages import MethodFace, Order, Ready, Sealed, decode
from nyx_stream.isolation.process.protocol import Connection
from nyx_stream.isolation.process.sealing import FRAMEWORK
from nyx_stream.plugin import Plugin, export

_CONFINEMENT = Confinement(readable=("/nonexistent",), network=Network.none(), new_session=True, working_directory="/")
_MEMORY = 2**27


class _Sample(Plugin):
    """A plugin with methods of the usual kinds."""

    @export
    async def call(self, number: int, text: str = "", **more: Any) -> dict[str, Any]:
        return {"number": number, "text": text, **more}

    @export
    async def items(self) -> AsyncIterator[str]:
        yield ""


def rehearse() -> None:
    """Goes once through everything but the acts."""
    order = Order(
        plugin="rehearsal", entry="a:B", folder="/", root="/", names=None, places={}, env={},
        confinement=_CONFINEMENT, memory=_MEMORY, setup_timeout=1.0,
    )  # fmt: skip
    opening = Connection("worker").receive(Connection("host").send(Frame(Kind.ORDER, body=order.encode())))
    decode(Order, opening[0])
    order.confinement.digest()
    _compile(order.confinement)
    Sealed(report=probe().to_dict(), baseline=0).encode()
    modules = PluginModules("rehearsal", FRAMEWORK, frozenset({"text"}))
    modules.load("text:escape")  # any small module will do
    modules.remove()
    methods = methods_of("rehearsal", _Sample())
    faces = [MethodFace(name=method.name, stream=method.stream) for method in methods.values()]
    Ready(methods=faces).encode()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_converse(order.encode(), methods["call"]))
    finally:
        loop.close()


async def _converse(body: bytes, method: Method) -> None:
    """Takes one frame from a socket, makes one call and sends one frame back."""
    ours, theirs = socket.socketpair()
    taken: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
    ended: list[Exception | None] = []
    channel = Channel(ours, Connection("worker"), taken.set_result, ended.append, takes_descriptors=True)
    with theirs:
        theirs.send(Connection("host").send(Frame(Kind.ORDER, body=body)))
        await taken
        await asyncio.get_running_loop().create_task(method.begin_json(b'{"number": 1}'))
        method.encode(method.check({"number": 1}, from_attributes=True))
        channel.send(Kind.SEALED)
        channel.close()


def _compile(confinement: Confinement) -> None:
    """Decides on rules and compiles a filter, as the layers will."""
    if sys.platform != "linux":
        return
    from nyx_core.linux.landlock_rules import NEWEST_ABI, ruleset_for
    from nyx_core.linux.runtime_paths import runtime_paths
    from nyx_core.linux.seccomp_filter import compile_rules
    from nyx_core.linux.seccomp_rules import Situation, rules_for
    from nyx_core.linux.syscall_table import native_table

    ruleset_for(confinement, NEWEST_ABI, runtime_paths(network=False))
    table = native_table()
    if table is not None:
        compile_rules(table, rules_for(confinement, Situation(pid=1, landlock=NEWEST_ABI)))
