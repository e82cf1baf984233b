"""A body on its way between host and worker: chunks over a socketpair of their own, so that the kernel does the flow
control. The same at both ends; knows no capability.

    chunk:  length, four bytes, big-endian, 1 to `MOST`; then the bytes
    end:    length 0; what follows, up to the end of the stream, is the JSON of a `RemoteFault`, or nothing: all is sent

A stream that ends without its end was cut: its sender was cancelled, or is gone. The receiver of a body may write one
thing: a `GO`, when it wants the first chunk. A sender that was given one side early can so be kept waiting.
"""

import asyncio
import socket
from collections.abc import Callable
from struct import Struct

from pydantic import ValidationError

from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import RemoteFault

MOST = 2**20
"""Bytes of one chunk; longer ones are cut."""
GO = b"\x01"

_LENGTH = Struct("!I")
_READ = 256 * 1024
STEP = 32 * 1024
"""Bytes that a host reads or sends in one turn of its loop."""
_LONGEST_FAULT = 2**20


class CutOff(ConnectionError):
    """The body ended without its end."""


class BodyStream:
    """One end, read by at most `read` bytes in a turn. Used by one task at a time, which also closes it."""

    __slots__ = ("_buffer", "_filled", "_left", "_loop", "_read", "_rest", "_socket", "_taken")

    def __init__(self, sock: socket.socket, read: int = _READ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray())
        self._filled = 0
        self._taken = 0
        self._left = 0
        self._rest: bytes | memoryview = b""
        self._read = read

    @property
    def socket(self) -> socket.socket:
        """The socket that it stands on."""
        return self._socket

    def close(self) -> None:
        """Closes this end; the other one finds that the body was cut, unless it was ended."""
        self._socket.close()

    # The sender's.

    async def started(self) -> None:
        """Waits until the receiver wants the body. Raises `CutOff` if it will not."""
        if await self._loop.sock_recv(self._socket, 1) != GO:
            raise CutOff("nobody wants the body")

    async def send(self, chunk: bytes | memoryview) -> None:
        """Sends some bytes, waiting while the receiver does not take them. Raises OSError if it is gone."""
        await self.drain()  # who was interrupted may have left a chunk half sent
        view = memoryview(chunk)
        for start in range(0, len(view), MOST):
            if not self.offer(view[start : start + MOST]):
                await self.drain()

    def offer(self, chunk: bytes | memoryview) -> bool:
        """Sends up to `MOST` bytes, one at least, without waiting. Raises OSError if the receiver is gone.

        Returns whether all of it is sent: otherwise `drain` comes before anything else.
        """
        return self._offer(_LENGTH.pack(len(chunk)), chunk)

    async def drain(self) -> None:
        """Waits until what was offered is sent. Raises OSError if the receiver is gone.

        If it is interrupted, what is left comes with the next call.
        """
        while self._rest:
            try:
                self._rest = self._rest[self._socket.send(self._rest) :] or b""  # an empty view would hold all of it
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        number, writable = self._socket.fileno(), self._loop.create_future()
        self._loop.add_writer(number, _done, writable)
        try:
            await writable
        finally:
            self._loop.remove_writer(number)

    async def end(self, fault: RemoteFault | None = None) -> None:
        """Says that the body is whole, or what went wrong, and closes this end. Raises OSError."""
        try:
            await self.drain()
            self._offer(_LENGTH.pack(0), b"" if fault is None else fault.encode())
            await self.drain()
        finally:
            self.close()

    def _offer(self, head: bytes, data: bytes | memoryview) -> bool:
        try:
            sent = self._socket.sendmsg((head, data))
        except BlockingIOError:
            sent = 0
        if sent < len(head) + len(data):
            self._rest = memoryview(b"".join((head, data)))[sent:]
        return not self._rest

    # The receiver's.

    async def go(self) -> None:
        """Tells the sender to begin. Raises OSError if it is gone."""
        await self._loop.sock_sendall(self._socket, GO)

    async def receive(self, raises: Callable[[RemoteFault], Exception]) -> bytes | None:
        """Returns the next bytes, or `None` when the body is whole.

        Raises:
            CutOff: the sender is gone.
            ProtocolFault: what it sent is no body.
            Exception: what `raises` makes of the sender's fault.
        """
        if not self._left:
            while self._filled - self._taken < _LENGTH.size:
                if not await self._fill():
                    raise CutOff("the body was cut")
            (self._left,) = _LENGTH.unpack_from(self._buffer, self._taken)
            self._taken += _LENGTH.size
            if self._left > MOST:
                raise ProtocolFault(f"a chunk of {self._left} bytes is over the limit of {MOST}")
            if not self._left:
                await self._conclude(raises)
                return None
        if self._taken == self._filled and not await self._fill():
            raise CutOff("the body was cut")
        size = min(self._filled - self._taken, self._left)
        chunk = bytes(self._buffer[self._taken : self._taken + size])
        self._taken += size
        self._left -= size
        return chunk

    async def _conclude(self, raises: Callable[[RemoteFault], Exception]) -> None:
        rest = bytearray(self._buffer[self._taken : self._filled])
        while piece := await self._loop.sock_recv(self._socket, _READ):
            rest += piece
            if len(rest) > _LONGEST_FAULT:
                raise ProtocolFault("a fault that does not end")
        if rest:
            try:
                fault = RemoteFault.model_validate_json(bytes(rest))
            except ValidationError as error:
                raise ProtocolFault(f"the end of a body is no fault: {error.error_count()} faults") from None
            raise raises(fault)

    async def _fill(self) -> bool:
        """Reads more behind what is there, in a turn of its own; returns whether there was any."""
        await asyncio.sleep(0)  # neither side may ever make it wait, and others have their turn too
        kept = self._filled - self._taken
        if not self._buffer:
            self._buffer = memoryview(bytearray(self._read))
        if kept:
            self._buffer[:kept] = bytes(self._buffer[self._taken : self._filled])
        self._taken, self._filled = 0, kept
        count = await self._loop.sock_recv_into(self._socket, self._buffer[kept:])
        self._filled += count
        return count > 0


def _done(writable: "asyncio.Future[None]") -> None:
    if not writable.done():
        writable.set_result(None)


def make_pipe() -> tuple[BodyStream, int]:
    """Returns the host's end, and a descriptor of the other, to be passed or closed."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, MOST)
    return BodyStream(ours, STEP), theirs.detach()
