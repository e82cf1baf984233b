"""A connected TCP socket as an anyio byte stream, which its host can end. Knows no guard and no isolation level."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

Ended = Callable[[], Exception | None]
"""Why the stream was ended from outside, or `None` while it was not."""


class ConnectedStream(ByteStream):
    """What `self.connect` returns. One task may receive and one may send at a time.

    Every operation raises anyio's errors, and `Revoked` once the host has taken the connection back. For TLS, wrap it:
    `await anyio.streams.tls.TLSStream.wrap(stream, hostname=…)`.

    Args:
        sock: connected; the stream's from now on.
        ended: asked when the connection breaks or is over.
        closed: called once, when the socket is closed.
    """

    def __init__(self, sock: socket.socket, ended: Ended, closed: Callable[[], object]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._ended = ended
        self._on_close = closed
        self._receiving = False
        self._sending = False
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes that arrive, at least one. Raises `anyio.EndOfStream` when the peer is done."""
        await checkpoint()
        self._check(self._receiving, "receiving from")
        self._receiving = True
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, max_bytes)
        except OSError as error:
            raise self._broken() from error
        finally:
            self._receiving = False
            self._release()
        if not data:
            raise self._over() or anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Sends all of `item`. Raises `anyio.BrokenResourceError` when the peer takes no more."""
        await checkpoint()
        self._check(self._sending, "sending to")
        self._sending = True
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, item)
        except OSError as error:
            raise self._broken() from error
        finally:
            self._sending = False
            self._release()

    async def send_eof(self) -> None:
        """Tells the peer that nothing more will be sent."""
        await checkpoint()
        self._check(self._sending, "sending to")
        with suppress(OSError):  # the peer is gone already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Closes the connection. Tasks that wait on it get `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            if self._receiving or self._sending:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits, and the last of them closes
            self._release()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """anyio's socket attributes but for `raw_socket`."""
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
        error = self._ended()
        if error is not None:
            raise error

    def _over(self) -> Exception | None:
        return anyio.ClosedResourceError() if self._closed else self._ended()

    def _broken(self) -> Exception:
        return self._over() or anyio.BrokenResourceError()

    def _release(self) -> None:
        """Closes the socket once nobody waits on it: the loop must not be left with a number that is another's."""
        if self._closed and not self._receiving and not self._sending and self._socket.fileno() >= 0:
            self._socket.close()
            self._on_close()
