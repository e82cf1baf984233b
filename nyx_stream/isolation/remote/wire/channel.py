"""Frames over a Unix stream socket on the event loop, each way. Knows no models and no plugin.

Reading is fair: in one turn of the loop at most `READ_MOST` bytes are read, and of the frames that give their receiver
work to do one is handed over, so that a flood from one worker delays nobody for long. Writing is at once where the
socket takes it; what it does not take is queued.
"""

import asyncio
import errno
import os
import select
import socket
from array import array
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeAlias

from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import MAX_DESCRIPTORS, Frame, Kind, Pieces, ProtocolFault, encode
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection, ProtocolState

_READ = 8 * 1024
READ_MOST = 64 * 1024
"""Bytes read in one turn of the loop at most."""
WORK = frozenset({Kind.ASK, Kind.LOG})
"""Frames whose receiver has work to do at once. What waits for the others is a caller, who asked for them."""
MOST_UNREAD = 64
"""Frames that a worker has not taken, above which its host reads nothing more of it: each answer that waits is memory
of the host, and often a descriptor."""
HIGH_WATER = 256 * 1024
"""Bytes queued above which `drain` waits."""
_Queued: TypeAlias = tuple[bytes | memoryview, tuple[int, ...], int, Callable[[OSError], bytes] | None]
"""What is left of a frame, the descriptors that go with its first byte, its number, and `refused` of `send`."""
_OVER = ProtocolState.OVER
_TRUNCATED = int(socket.MSG_CTRUNC)
_CLOSED_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))  # macOS has none: there it is done afterwards


class Channel:
    """One connection. All of it is called on the event loop's thread.

    `receive` gets each frame, and may raise `ProtocolFault`; `ended` is called once, when the connection is over for
    whatever reason: the fault or `OSError` that ended it, or `None` for an orderly end. The other side sees the end
    after that: a worker that has broken the protocol still gets to say so, and is not killed meanwhile.

    `growing` is called with number and body of a large frame that is not complete, each time that there is more of it.

    Only a worker's side (`takes_descriptors`) is given descriptors. The host's does not even ask the kernel for them:
    what a worker would send that way is closed before anybody sees it (unix(7)).
    """

    def __init__(
        self,
        sock: socket.socket,
        connection: ProtocolConnection,
        receive: Callable[[Frame], None],
        ended: Callable[[Exception | None], None],
        *,
        takes_descriptors: bool,
        turns: FairScheduler | None = None,
        growing: Callable[[int, Pieces], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._connection = connection
        self._receive = receive
        self._ended = ended
        self._takes_descriptors = takes_descriptors
        # Not a constant of the module: Windows has no CMSG_SPACE.
        self._ancillary = socket.CMSG_SPACE(2 * MAX_DESCRIPTORS * array("i").itemsize) if takes_descriptors else 0
        self._turns = turns
        self._growing = growing
        self._arrived: deque[Frame] = deque()
        """Frames that wait for a turn; nothing more is read before they are gone."""
        self._resting = False
        self._stalled = False
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Queued] = deque()
        self.queued = 0
        """Bytes that the socket has not taken yet."""
        self._drained: asyncio.Future[None] | None = None
        self._deferred: deque[Frame] = deque()
        self._context = copy_context()
        self.closed = False
        """Whether nothing can be sent any more."""
        self._loop.add_reader(sock, self._readable)

    def send(
        self,
        kind: Kind,
        number: int = 0,
        detail: int = 0,
        body: bytes = b"",
        descriptors: tuple[int, ...] = (),
        refused: Callable[[OSError], bytes] | None = None,
    ) -> None:
        """Sends a frame now or as soon as the socket takes it. The descriptors are the channel's: it closes them.

        Those of one user that are under way and not taken yet are bounded, over all of that user's processes (unix(7),
        ETOOMANYREFS): so that one worker that takes none does not end another, an answer whose descriptors do not pass
        becomes a REFUSED, with the body that `refused` returns.

        On a connection that is over the frame is dropped: `ended` has told everybody concerned.

        Raises:
            ProtocolFault: the frame may not be sent now; the descriptors are closed, the connection goes on.
        """
        if self.closed or self._connection.state is _OVER:
            _close_all(descriptors)
            return
        try:
            data: bytes | memoryview = self._connection.send(Frame(kind, number, detail, body, descriptors))
        except ProtocolFault:
            _close_all(descriptors)
            raise
        if not self._queue:
            try:
                sent = self._write(data, descriptors)
            except OSError as error:
                _close_all(descriptors)
                if error.errno != errno.ETOOMANYREFS or refused is None:
                    self._loop.call_soon(self._end, error)
                    return
                data, descriptors, sent = _refusal(number, refused(error)), (), 0
            if sent == len(data):
                _close_all(descriptors)
                return
            if sent:
                _close_all(descriptors)
                descriptors = ()
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._socket, self._writable)
        self._queue.append((data, descriptors, number, refused))
        self.queued += len(data)
        if len(self._queue) >= MOST_UNREAD and self._turns is not None and not self._stalled:
            self._stalled = True
            self._loop.remove_reader(self._socket)

    async def drain(self, most: int = HIGH_WATER) -> None:
        """Waits until at most `most` bytes are queued, or the connection is over."""
        while self.queued > most and not self.closed:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def wait(self, done: Callable[[], bool], urgent: frozenset[Kind]) -> None:
        """Sends what is queued and takes frames on this very stack, the loop standing still, until `done()` or the end.

        Only frames of the `urgent` kinds are passed on meanwhile; the others follow in their order, by the loop.
        """
        poll, receive = select.poll(), self._receive

        def take(frame: Frame) -> None:
            if frame.kind in urgent and not done():
                receive(frame)
            else:
                self._deferred.append(frame)

        self._receive = take
        try:
            while not self.closed and not done():
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._queue else 0))
                poll.poll()
                if self._queue:
                    self._writable()
                if not self.closed:
                    self._readable()
        finally:
            self._receive = receive
        if self._deferred:
            self._loop.call_soon(self._deliver_deferred, context=self._context)

    def close(self) -> None:
        """Ends the connection without telling `ended`. Can be called again."""
        if self.closed:
            return
        self.closed = True
        self._arrived.clear()  # descriptors come to a worker only, and nothing waits there
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        _close_all(self._connection.take_descriptors())
        for _, descriptors, _, _ in self._queue:
            _close_all(descriptors)
        for frame in self._deferred:
            _close_all(frame.descriptors)
        self._deferred.clear()
        self._queue.clear()
        self.queued = 0
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the connection because of what a frame meant, and tells `ended`."""
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if not self.closed:
            self._ended(error)
            self.close()

    def _readable(self) -> None:
        try:
            wanted = self._connection.wanted
            size = _READ if wanted < _READ else min(wanted, READ_MOST)
            if self._takes_descriptors and self._connection.asking:
                data, descriptors = self._read_with_descriptors(size)
            else:
                data, descriptors = self._socket.recv(size), ()
            if not data:
                self._connection.receive_end()
                self._end(None)
                return
            for frame in self._connection.receive(data, descriptors):
                if self.closed:
                    _close_all(frame.descriptors)
                elif self._arrived or (self._turns is not None and frame.kind in WORK):
                    self._arrived.append(frame)  # behind a frame that waits, for they have an order
                else:
                    self._receive(frame)
            if self._growing is not None and self._connection.growing is not None:
                self._growing(*self._connection.growing)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ProtocolFault) as error:
            self._end(error)
            return
        if self._arrived and self._turns is not None:
            self._turns.next(self._hand_over)
            if self._arrived and not self._resting:
                self._rest(True)

    def _hand_over(self) -> None:
        """Has a turn: hands over the frame that waited for it, and those behind it that need none."""
        try:
            while self._arrived and not self.closed:
                self._receive(self._arrived.popleft())
                if self._arrived and self._arrived[0].kind in WORK:
                    break
        except (OSError, ProtocolFault) as error:
            self._end(error)
        if self.closed:
            return
        if self._arrived and self._turns is not None:
            self._turns.next(self._hand_over)
        elif self._resting:
            self._rest(False)

    def _rest(self, resting: bool) -> None:
        self._resting = resting
        if resting:
            self._loop.remove_reader(self._socket)
        elif not self._stalled:
            self._loop.add_reader(self._socket, self._readable)

    def _deliver_deferred(self) -> None:
        try:
            while self._deferred and not self.closed:
                self._receive(self._deferred.popleft())
        except ProtocolFault as error:
            self._end(error)

    def _read_with_descriptors(self, size: int) -> tuple[bytes, tuple[int, ...]]:
        data, ancillary, flags, _ = self._socket.recvmsg(size, self._ancillary, _CLOSED_ON_EXEC)
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
        return data, tuple(descriptors)

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
            data, descriptors, number, refused = self._queue.popleft()
            try:
                sent = self._write(data, descriptors)
            except OSError as error:
                _close_all(descriptors)
                if error.errno != errno.ETOOMANYREFS or refused is None:
                    self._end(error)
                    return
                refusal = _refusal(number, refused(error))
                self.queued += len(refusal) - len(data)
                self._queue.appendleft((refusal, (), number, None))
                continue
            if sent:
                _close_all(descriptors)
                descriptors = ()
            self.queued -= sent
            if sent < len(data):
                self._queue.appendleft((memoryview(data)[sent:], descriptors, number, refused))
                break
        else:
            self._loop.remove_writer(self._socket)
        if self._stalled and len(self._queue) < MOST_UNREAD:
            self._stalled = False
            if not self._resting:
                self._loop.add_reader(self._socket, self._readable)
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def _refusal(number: int, body: bytes) -> bytes:
    # Past the protocol's own machine, which has counted the answer: to it the two are the same.
    return encode(Frame(Kind.REFUSED, number, body=body))


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
