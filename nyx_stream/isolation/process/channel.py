"""Frames over a Unix stream socket on the event loop, each way. Knows no models and no plugin.

Reading is fair: one turn of the loop reads little more than the frame under way, so that a flood from one worker
delays nobody for long. Writing is at once where the socket takes it; what it does not take is queued.
"""

import asyncio
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable

from nyx_stream.isolation.process.frames import MAX_DESCRIPTORS, Frame, Kind, ProtocolFault
from nyx_stream.isolation.process.protocol import Connection, State

_READ = 8 * 1024
_READ_MOST = 512 * 1024
HIGH_WATER = 256 * 1024
"""Bytes queued above which `drain` waits."""
_TRUNCATED = int(socket.MSG_CTRUNC)
_CLOSED_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))  # macOS has none: there it is done afterwards


class Channel:
    """One connection. All of it is called on the event loop's thread.

    `receive` gets each frame, and may raise `ProtocolFault`; `ended` is called once, when the connection is over for
    whatever reason: the fault or `OSError` that ended it, or `None` for an orderly end.

    Only a worker's side (`takes_descriptors`) is given descriptors. The host's does not even ask the kernel for them:
    what a worker would send that way is closed before anybody sees it (unix(7)).
    """

    def __init__(
        self,
        sock: socket.socket,
        connection: Connection,
        receive: Callable[[Frame], None],
        ended: Callable[[Exception | None], None],
        *,
        takes_descriptors: bool,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._connection = connection
        self._receive = receive
        self._ended = ended
        self._read = self._read_with_descriptors if takes_descriptors else self._read_bytes
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._queued = 0
        self._drained: asyncio.Future[None] | None = None
        self._closed = False
        self._ancillary = socket.CMSG_SPACE(2 * MAX_DESCRIPTORS * array("i").itemsize) if takes_descriptors else 0
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    @property
    def queued(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._queued

    def send(
        self, kind: Kind, number: int = 0, detail: int = 0, body: bytes = b"", descriptors: tuple[int, ...] = ()
    ) -> None:
        """Sends a frame now or as soon as the socket takes it. The descriptors are the channel's: it closes them.

        On a connection that is over the frame is dropped: `ended` has told everybody concerned.

        Raises:
            ProtocolFault: the frame may not be sent now; the descriptors are closed, the connection goes on.
        """
        if self._closed or self._connection.state is State.OVER:
            _close_all(descriptors)
            return
        try:
            data = self._connection.send(Frame(kind, number, detail, body, descriptors))
        except ProtocolFault:
            _close_all(descriptors)
            raise
        if not self._queue:
            try:
                sent = self._write(data, descriptors)
            except OSError as error:
                _close_all(descriptors)
                self._loop.call_soon(self._end, error)
                return
            if sent == len(data):
                _close_all(descriptors)
                return
            if sent:
                _close_all(descriptors)
                descriptors = ()
            data = data[sent:]
            self._loop.add_writer(self._socket, self._writable)
        self._queue.append((memoryview(data), descriptors))
        self._queued += len(data)

    async def drain(self, most: int = HIGH_WATER) -> None:
        """Waits until at most `most` bytes are queued, or the connection is over."""
        while self._queued > most and not self._closed:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def close(self) -> None:
        """Ends the connection without telling `ended`. Can be called again."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        _close_all(self._connection.take_descriptors())
        for _, descriptors in self._queue:
            _close_all(descriptors)
        self._queue.clear()
        self._queued = 0
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the connection because of what a frame meant, and tells `ended`."""
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if not self._closed:
            self.close()
            self._ended(error)

    def _readable(self) -> None:
        try:
            frames = self._read()
            for frame in frames:
                if self._closed:
                    _close_all(frame.descriptors)
                else:
                    self._receive(frame)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ProtocolFault) as error:
            self._end(error)

    def _read_bytes(self) -> list[Frame]:
        data = self._socket.recv(self._size())
        return self._connection.receive(data) if data else self._closed_by_peer()

    def _read_with_descriptors(self) -> list[Frame]:
        if not self._connection.asking:
            return self._read_bytes()
        data, ancillary, flags, _ = self._socket.recvmsg(self._size(), self._ancillary, _CLOSED_ON_EXEC)
        descriptors = array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if not _CLOSED_ON_EXEC:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        if flags & _TRUNCATED:
            _close_all(tuple(descriptors))
            raise ProtocolFault("descriptors were cut off")
        return self._connection.receive(data, descriptors) if data else self._closed_by_peer()

    def _size(self) -> int:
        wanted = self._connection.wanted
        return _READ if wanted < _READ else min(wanted, _READ_MOST)

    def _closed_by_peer(self) -> list[Frame]:
        self._connection.receive_end()
        self._end(None)
        return []

    def _write(self, data: bytes | memoryview, descriptors: tuple[int, ...]) -> int:
        try:
            if descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
                return self._socket.sendmsg([data], [rights])
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def _writable(self) -> None:
        while self._queue:
            data, descriptors = self._queue.popleft()
            try:
                sent = self._write(data, descriptors)
            except OSError as error:
                _close_all(descriptors)
                self._end(error)
                return
            if sent:
                _close_all(descriptors)
                descriptors = ()
            self._queued -= sent
            if sent < len(data):
                self._queue.appendleft((data[sent:], descriptors))
                break
        else:
            self._loop.remove_writer(self._socket)
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
