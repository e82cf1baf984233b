"""Host binding of the connect service: connects for the worker and passes the socket.

From then on the worker speaks to the peer directly. It can't connect the socket elsewhere, because its seal refuses
connect(2), bind(2) and listen(2). The host keeps a duplicate, so that ending the connection ends it in both processes.
A second pair of sockets, the control channel, tells the worker why the host has ended the connection, and tells the
host that the worker has closed it.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from pydantic import Field

from nyx_stream.capabilities.connect.service import LocalConnection
from nyx_stream.errors import SandboxDenied
from nyx_stream.isolation.capability_set import CapabilitySet
from nyx_stream.isolation.remote.host.broker import Handler, Reply
from nyx_stream.isolation.remote.wire.messages import fault_of


class ConnectHandler(Handler):
    capability = "connect"
    actions = ("open",)

    def __init__(self, capabilities: CapabilitySet) -> None:
        super().__init__(capabilities)
        self._passed: set[_PassedConnection] = set()

    async def open(self, host: Annotated[str, Field(max_length=64 * 1024)], port: int) -> Reply:
        connection: LocalConnection = await self._service.connect(host, port)
        try:
            _finish_connecting(connection.socket)
        except OSError:
            connection.socket.close()
            connection.release()
            raise
        passed = _PassedConnection(connection, self._passed.discard)
        self._passed.add(passed)
        return Reply(self._plugin, (os.dup(connection.socket.fileno()), passed.worker_end.detach()))

    async def aclose(self) -> None:
        for passed in list(self._passed):
            passed.close()


def _finish_connecting(sock: socket.socket) -> None:
    """Tells the kernel that the connection is open; raises OSError if it isn't any more.

    After a connect(2) that didn't wait, Linux counts a socket as connecting until the next call of connect. If its peer
    resets it before that, MSG_FASTOPEN can connect it elsewhere. The seal refuses that flag too.
    """
    code = sock.connect_ex(sock.getpeername())
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))


class _PassedConnection:
    """A connection that the worker has, and both ends of its control channel."""

    def __init__(self, connection: LocalConnection, closed: Callable[["_PassedConnection"], object]) -> None:
        self._connection = connection
        self._on_close = closed
        self._control, self.worker_end = socket.socketpair()
        self._control.setblocking(False)
        self._loop = asyncio.get_running_loop()
        # The worker never writes, so the channel becomes readable when its end is closed.
        self._loop.add_reader(self._control, self.close)
        connection.on_end = self._send_error

    def close(self) -> None:
        """Closes the host's duplicate; the connection ends when the worker has closed its socket too."""
        self._on_close(self)
        self._loop.remove_reader(self._control)
        self._control.close()
        self._connection.socket.close()
        self._connection.release()

    def _send_error(self, error: SandboxDenied) -> None:
        with suppress(OSError):  # the worker has closed its end already
            self._control.send(fault_of(error).encode())
            self._control.shutdown(socket.SHUT_WR)
