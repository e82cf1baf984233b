"""A body in transit between host and worker: chunks over a separate socketpair, so that the kernel's socket buffers
provide the backpressure.

    chunk:  length, four bytes, big-endian, 1 to `MAX_CHUNK`; then the bytes
    end:    length 0; then, up to the end of the stream, the JSON of a `RemoteFault`, or nothing if the body is complete

A stream that closes without its end was truncated: the sender was cancelled, or is gone. The receiver may write one
thing, `GO`, to request the first chunk: a sender that got its end early waits for that.
"""

import asyncio
import socket
from collections.abc import Callable
from struct import Struct

from pydantic import ValidationError

from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import RemoteFault

MAX_CHUNK = 2**20
"""Bytes of one chunk; longer ones are split."""
GO = b"\x01"

_LENGTH = Struct("!I")
_READ = 256 * 1024
STEP = 32 * 1024
"""Bytes that a host reads or sends in one turn of its loop."""
_MAX_FAULT = 2**20


class CutOff(ConnectionError):
    """The body closed without its end."""


class BodyStream:
    """One end, which reads at most `read` bytes per turn of the loop. Used by one task at a time, which closes it."""

    __slots__ = ("_buffer", "_filled", "_left", "_loop", "_read", "_rest", "_taken", "socket")

    def __init__(self, sock: socket.socket, read: int = _READ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray())
        self._filled = 0
        self._taken = 0
        self._left = 0
        self._rest: bytes | memoryview = b""
        self._read = read

    def close(self) -> None:
        """Closes this end. Unless the body was ended, the other end raises `CutOff`."""
        self.socket.close()

    # For the sender.

    async def started(self) -> None:
        """Waits until the receiver requests the body. Raises `CutOff` if it closes its end instead."""
        if await self._loop.sock_recv(self.socket, 1) != GO:
            raise CutOff("the receiver doesn't want the body")

    async def send(self, chunk: bytes | memoryview) -> None:
        """Sends bytes, waiting for the receiver where needed. Raises OSError if it is gone."""
        await self.drain()  # a caller that was cancelled may have left a chunk half sent
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_CHUNK):
            if not self.offer(view[start : start + MAX_CHUNK]):
                await self.drain()

    def offer(self, chunk: bytes | memoryview) -> bool:
        """Sends 1 to `MAX_CHUNK` bytes without waiting. Raises OSError if the receiver is gone.

        Returns whether all of it is sent. Otherwise `drain` must follow before anything else is sent.
        """
        return self._offer(_LENGTH.pack(len(chunk)), chunk)

    async def drain(self) -> None:
        """Waits until the last offer is sent. Raises OSError if the receiver is gone.

        If it is cancelled, the next call continues.
        """
        while self._rest:
            try:
                self._rest = self._rest[self.socket.send(self._rest) :] or b""  # an empty view would retain its buffer
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        number, writable = self.socket.fileno(), asyncio.Event()
        self._loop.add_writer(number, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(number)

    async def end(self, fault: RemoteFault | None = None) -> None:
        """Marks the body as complete, or as failed with `fault`, and closes this end. Raises OSError."""
        try:
            await self.drain()
            self._offer(_LENGTH.pack(0), b"" if fault is None else fault.encode())
            await self.drain()
        finally:
            self.close()

    def _offer(self, head: bytes, data: bytes | memoryview) -> bool:
        try:
            sent = self.socket.sendmsg((head, data))
        except BlockingIOError:
            sent = 0
        if sent < len(head) + len(data):
            self._rest = memoryview(b"".join((head, data)))[sent:]
        return not self._rest

    # For the receiver.

    async def go(self) -> None:
        """Requests the body from the sender. Raises OSError if it is gone."""
        await self._loop.sock_sendall(self.socket, GO)

    async def receive(self, raises: Callable[[RemoteFault], Exception]) -> bytes | None:
        """Returns the next bytes, or `None` at the end of the body.

        Raises:
            CutOff: the sender is gone.
            ProtocolFault: the sender violated the protocol.
            Exception: what `raises` returns for the sender's fault.
        """
        if not self._left:
            while self._filled - self._taken < _LENGTH.size:
                if not await self._fill():
                    raise CutOff("the body was truncated")
            (self._left,) = _LENGTH.unpack_from(self._buffer, self._taken)
            self._taken += _LENGTH.size
            if self._left > MAX_CHUNK:
                raise ProtocolFault(f"a chunk of {self._left} bytes is over the limit of {MAX_CHUNK}")
            if not self._left:
                await self._receive_fault(raises)
                return None
        if self._taken == self._filled and not await self._fill():
            raise CutOff("the body was truncated")
        size = min(self._filled - self._taken, self._left)
        chunk = bytes(self._buffer[self._taken : self._taken + size])
        self._taken += size
        self._left -= size
        return chunk

    async def _receive_fault(self, raises: Callable[[RemoteFault], Exception]) -> None:
        rest = bytearray(self._buffer[self._taken : self._filled])
        while piece := await self._loop.sock_recv(self.socket, _READ):
            rest += piece
            if len(rest) > _MAX_FAULT:
                raise ProtocolFault(f"the fault at the end of a body has more than {_MAX_FAULT} bytes")
        if rest:
            try:
                fault = RemoteFault.model_validate_json(bytes(rest))
            except ValidationError as error:
                raise ProtocolFault(f"invalid fault at the end of a body: {error.error_count()} errors") from None
            raise raises(fault)

    async def _fill(self) -> bool:
        """Reads more in another turn of the loop. Returns whether there was any."""
        await asyncio.sleep(0)  # so that neither side alone can keep the loop busy
        kept = self._filled - self._taken
        if not self._buffer:
            self._buffer = memoryview(bytearray(self._read))
        if kept:
            self._buffer[:kept] = bytes(self._buffer[self._taken : self._filled])
        self._taken, self._filled = 0, kept
        count = await self._loop.sock_recv_into(self.socket, self._buffer[kept:])
        self._filled += count
        return count > 0


def make_pipe() -> tuple[BodyStream, int]:
    """Returns the host's end, and a descriptor of the worker's end, which the caller passes on or closes."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, MAX_CHUNK)
    return BodyStream(ours, STEP), theirs.detach()
