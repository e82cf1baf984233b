"""What a plugin holds as `self.connect`, at every isolation level, and the streams that it returns."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint


class Connection(Protocol):
    """A connected socket that the host can end. The owner of the connection closes `socket`."""

    socket: socket.socket

    def error(self) -> Exception | None:
        """Returns why the host has ended the connection, or `None` while it hasn't."""

    def release(self) -> None:
        """Gives the connection back. Called once, after the socket was closed."""


class ConnectService(Protocol):
    """Connects to hosts, at addresses that the guard has checked."""

    async def connect(self, host: str, port: int) -> Connection:
        """Connects within `request_timeout` of the grant.

        Raises:
            NetworkDenied: no connect rule grants it, or the name resolves to an address that isn't granted. Audited.
            Revoked: the lease has ended.
            LimitExceeded: `connections` of the grant are open.
            OSError: the connection failed; a `TimeoutError` if it took too long.
        """


class Connect:
    """`await connect(host, port)`: a TCP connection as an anyio byte stream. Raises as `ConnectService.connect`."""

    __slots__ = ("_service",)

    def __init__(self, service: ConnectService) -> None:
        self._service = service

    async def __call__(self, host: str, port: int) -> ByteStream:
        return ConnectedStream(await self._service.connect(host, port))


class ConnectedStream(ByteStream):
    """What `self.connect` returns. One task may receive and one may send at a time.

    Every operation raises anyio's errors, and `Revoked` once the host has taken the connection back. For TLS, wrap it:
    `await anyio.streams.tls.TLSStream.wrap(stream, hostname=…)`.
    """

    def __init__(self, connection: Connection) -> None:
        connection.socket.setblocking(False)
        self._connection = connection
        self._socket = connection.socket
        self._receiving = False
        self._sending = False
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Returns the next bytes, at least one. Raises `anyio.EndOfStream` when the peer has sent everything."""
        await checkpoint()
        self._check(self._receiving, "receiving from")
        self._receiving = True
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, max_bytes)
        except OSError as error:
            raise self._ended() or anyio.BrokenResourceError() from error
        finally:
            self._receiving = False
            self._close_unused()
        if not data:
            raise self._ended() or anyio.EndOfStream()
        return data

    async def send(self, item: bytes) -> None:
        """Sends all of `item`. Raises `anyio.BrokenResourceError` if the peer has closed the connection."""
        await checkpoint()
        self._check(self._sending, "sending to")
        self._sending = True
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, item)
        except OSError as error:
            raise self._ended() or anyio.BrokenResourceError() from error
        finally:
            self._sending = False
            self._close_unused()

    async def send_eof(self) -> None:
        """Tells the peer that nothing more will be sent."""
        await checkpoint()
        self._check(self._sending, "sending to")
        with suppress(OSError):  # the peer has closed the connection already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Closes the connection. A task that waits for it gets `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            if self._receiving or self._sending:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes the waiting tasks; the last of them closes
            self._close_unused()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """anyio's socket attributes, without `raw_socket`."""
        return {
            SocketAttribute.family: lambda: self._socket.family,
            SocketAttribute.local_address: lambda: self._socket.getsockname()[:2],
            SocketAttribute.local_port: lambda: self._socket.getsockname()[1],
            SocketAttribute.remote_address: lambda: self._socket.getpeername()[:2],
            SocketAttribute.remote_port: lambda: self._socket.getpeername()[1],
        }

    def _check(self, busy: bool, what: str) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if busy:
            raise anyio.BusyResourceError(what)
        error = self._connection.error()
        if error is not None:
            raise error

    def _ended(self) -> Exception | None:
        """Returns the error for a connection that was closed here, or ended by the host."""
        return anyio.ClosedResourceError() if self._closed else self._connection.error()

    def _close_unused(self) -> None:
        """Closes the socket when no task waits for it: the loop must not watch a number that another file could get."""
        if self._closed and not self._receiving and not self._sending and self._socket.fileno() >= 0:
            self._socket.close()
            self._connection.release()
