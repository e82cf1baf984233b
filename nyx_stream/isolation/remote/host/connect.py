"""Host side of `self.connect`: dials with the plugin's guarded capability and passes the connected socket.

The worker speaks to the peer directly from then on. It cannot turn the socket elsewhere: its seal refuses connect(2),
bind(2) and listen(2). The host keeps a reference, so that ending the connection ends it for both, and a second pair of
sockets, the lifeline, by which each side learns that the other has let go.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from pydantic import Field, JsonValue

from nyx_stream.capabilities.connect.service import GuardedConnect, Link
from nyx_stream.errors import SandboxDenied
from nyx_stream.isolation.remote.host.broker import Means, Reply
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Arguments, fault_of


class Open(Arguments):
    """Where to connect to; the guard judges both."""

    host: Annotated[str, Field(max_length=64 * 1024)]
    port: int


class HostConnect:
    """A `Handler`: `open`."""

    def __init__(self, means: Means) -> None:
        self._connect: GuardedConnect = means.provision.get("connect")
        self._plugin = means.plugin
        self._lent: set[_Lent] = set()

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action != "open":
            raise ProtocolFault(f"connect cannot {action!r}")
        ask = Open.model_validate(arguments)
        link = await self._connect.open(ask.host, ask.port)
        try:
            _settle(link.sock)
        except OSError:
            link.release()
            link.sock.close()
            raise
        lent = _Lent(link, self._lent.discard)
        self._lent.add(lent)
        return Reply(self._plugin, (os.dup(link.sock.fileno()), lent.theirs.detach()))

    async def aclose(self) -> None:
        for lent in list(self._lent):
            lent.drop()


def _settle(sock: socket.socket) -> None:
    """Tells the kernel that the connection is up; raises OSError if it is not any more.

    After a connect(2) that did not wait, Linux counts a socket as connecting until the next call of connect, and once
    its peer has reset such a one, MSG_FASTOPEN leads it elsewhere. The seal refuses that flag; this is the second lock.
    """
    code = sock.connect_ex(sock.getpeername())
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))


class _Lent:
    """A connection that the worker has, and the host's end of its lifeline."""

    def __init__(self, link: Link, forget: Callable[["_Lent"], None]) -> None:
        self._link = link
        self._forget = forget
        self._line, self.theirs = socket.socketpair()
        self._line.setblocking(False)
        self._loop = asyncio.get_running_loop()
        # The worker never writes: what makes the lifeline readable is that its end is gone.
        self._loop.add_reader(self._line, self.drop)
        link.on_end = self._tell

    def drop(self) -> None:
        """Lets go of the connection; it is over when the worker has let go too."""
        self._forget(self)
        self._loop.remove_reader(self._line)
        self._line.close()
        self._link.release()
        self._link.sock.close()

    def _tell(self, error: SandboxDenied) -> None:
        with suppress(OSError):  # the worker has let go already
            self._line.send(fault_of(error).encode())
            self._line.shutdown(socket.SHUT_WR)
