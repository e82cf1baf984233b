"""Sends and receives frames over a Unix stream socket on the event loop.

Reading is fair: one turn of the loop reads at most `MAX_READ` bytes, and of the frames that make their receiver work it
delivers one, so that a flood from one worker delays the others little. Writing happens at once; what the socket doesn't
take is queued.

Theory of operation
    Some frames make the host work as soon as they arrive (a request, a log record), and so does a printed line or a
    large result. A worker can send these faster than the host can process them. If each were processed where it is
    read, one read would keep the loop busy for a whole buffer's worth, and every other worker and caller would wait.

    So all workers of a host share one `FairScheduler`. The first step in a turn of the loop runs at once; every other
    step waits in a queue, and each turn runs one of it. Between two steps the loop does its other work. A step that has
    more to do queues itself again, behind the steps of the other workers. The cost of a flood is therefore one step per
    turn, however many workers flood, and a worker that isn't flooding waits for at most one step of each that is. The
    readers of channels and of output stop reading while a step of theirs waits, so backpressure reaches the worker
    through the kernel's socket buffer.
"""

import asyncio
import errno
import os
import select
import socket
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import TypeAlias

from nyx_stream.isolation.remote.wire.frames import (
    MAX_DESCRIPTORS,
    Frame,
    FrameKind,
    LargeBody,
    ProtocolFault,
    encode,
)
from nyx_stream.isolation.remote.wire.protocol import ProtocolConnection, ProtocolState

_READ = 8 * 1024
MAX_READ = 64 * 1024
"""The most bytes read in one turn of the loop."""
WORK = frozenset({FrameKind.REQUEST, FrameKind.LOG})
"""Frames that make their receiver work at once. All others answer something that the receiver sent."""
MAX_UNREAD = 64
"""Frames queued for a worker from which on its host stops reading from it: each response that waits takes memory of
the host, and often a descriptor."""
HIGH_WATER = 256 * 1024
"""Bytes queued above which `drain` waits."""

Handlers: TypeAlias = Mapping[FrameKind, Callable[[Frame], None]]
_Queued: TypeAlias = tuple[bytes | memoryview, tuple[int, ...], int, Callable[[OSError], bytes] | None]
"""The rest of a frame, the descriptors that go with its first byte, its number, and `on_refused` of `send`."""

_OVER = ProtocolState.OVER
_TRUNCATED = int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))  # missing on macOS: there it is set afterwards


class FairScheduler:
    """Runs steps on the running event loop. Shared by all workers of a host."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps: deque[Callable[[], None]] = deque()
        self._taken = False

    def acquire(self) -> bool:
        """Takes this turn of the loop and returns whether it was still free. If so, the caller may run one step now."""
        if self._taken:
            return False
        self._taken = True
        self._loop.call_soon(self._turn)
        return True

    def run(self, step: Callable[[], None]) -> None:
        """Calls `step` now if this turn of the loop is still free, otherwise in a later turn.

        A queued step can't be withdrawn: it must check whether it is still needed.
        """
        if self.acquire():
            step()
        else:
            self._steps.append(step)

    def _turn(self) -> None:
        if not self._steps:
            self._taken = False
            return
        self._loop.call_soon(self._turn)
        self._steps.popleft()()


class Channel:
    """One connection. Use it on the event loop's thread only.

    `handlers` has a function for every kind of frame that the peer may send; it may raise `ProtocolFault`. `ended` is
    called once when the connection ends: with the `ProtocolFault` or `OSError` that ended it, or `None` if the peer
    closed it. The socket is closed after that call, so that a worker that violated the protocol can still say so before
    its host, which kills it when the socket closes, reacts.

    `on_partial` is called with id and body of a large frame each time more of it has arrived.

    Only the worker's side (`takes_descriptors`) accepts descriptors. The host's side doesn't ask the kernel for them,
    which therefore closes any that a worker sends (unix(7)).
    """

    def __init__(
        self,
        sock: socket.socket,
        connection: ProtocolConnection,
        handlers: Handlers,
        ended: Callable[[Exception | None], None],
        *,
        takes_descriptors: bool,
        scheduler: FairScheduler | None = None,
        on_partial: Callable[[int, LargeBody], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._connection = connection
        self._handlers = handlers
        self._ended = ended
        self._takes_descriptors = takes_descriptors
        # Computed here because Windows has no CMSG_SPACE.
        self._ancillary = socket.CMSG_SPACE(2 * MAX_DESCRIPTORS * array("i").itemsize) if takes_descriptors else 0
        self._scheduler = scheduler
        self._on_partial = on_partial
        self._delayed: deque[Frame] = deque()
        """Frames that wait for the scheduler, and those that arrived behind them, while reading is paused; or, on a
        channel without a scheduler, those that arrived during `wait`."""
        self._reading_paused = False
        self._peer_stalled = False
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Queued] = deque()
        self.queued_bytes = 0
        """Bytes that the socket hasn't taken yet."""
        self._drained: asyncio.Future[None] | None = None
        self._context = copy_context()
        self.closed = False
        """Whether sending has become impossible."""
        self._loop.add_reader(sock, self._readable)

    @property
    def queued_frames(self) -> int:
        """Frames that the socket hasn't taken yet."""
        return len(self._queue)

    def send(
        self,
        kind: FrameKind,
        number: int = 0,
        detail: int = 0,
        body: bytes = b"",
        descriptors: tuple[int, ...] = (),
        on_refused: Callable[[OSError], bytes] | None = None,
    ) -> None:
        """Sends a frame now, or as soon as the socket takes it. The channel owns the descriptors and closes them.

        The kernel limits how many descriptors of one user may be in flight, over all processes of that user (unix(7),
        ETOOMANYREFS). So that one worker that accepts none doesn't end the connection of another, a RESPONSE whose
        descriptors are refused becomes a REQUEST_FAILED with the body that `on_refused` returns.

        On a closed connection the frame is dropped: `ended` has informed everyone who waits for a reply.

        Raises:
            ProtocolFault: the frame may not be sent now. The descriptors are closed; the connection continues.
        """
        connection = self._connection
        if self.closed or connection.state is _OVER:
            close_all(descriptors)
            return
        try:
            data: bytes | memoryview = connection.send(kind, number, detail, body, descriptors)
        except ProtocolFault:
            close_all(descriptors)
            raise
        if not self._queue and not descriptors:
            try:
                sent = self._socket.send(data)
            except OSError:  # if it isn't that the socket is full, `_flush` gets the same error
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._queue.append((data, descriptors, number, on_refused))
        self.queued_bytes += len(data)
        if len(self._queue) == 1:
            if (error := self._flush()) is not None:
                self._loop.call_soon(self.fail, error)  # not now: the caller may be about to wait for a reply
            elif self._queue:
                self._loop.add_writer(self._socket, self._writable)
        if len(self._queue) >= MAX_UNREAD and self._scheduler is not None and not self._peer_stalled:
            self._peer_stalled = True
            self._loop.remove_reader(self._socket)

    async def drain(self, limit: int = HIGH_WATER) -> None:
        """Waits until at most `limit` bytes are queued, or the connection has ended."""
        while self.queued_bytes > limit and not self.closed:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def wait(self, done: Callable[[], bool], urgent: frozenset[FrameKind]) -> None:
        """Sends and receives frames without the event loop, which stands still, until `done()` or the end.

        Only frames of the `urgent` kinds are delivered meanwhile; the loop delivers the others afterwards, in order.
        """
        poll, handlers = select.poll(), self._handlers

        def deliver(frame: Frame) -> None:
            if frame.kind in urgent and not done():
                handlers[frame.kind](frame)
            else:
                self._delayed.append(frame)

        self._handlers = dict.fromkeys(handlers, deliver)
        try:
            while not self.closed and not done():
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._queue else 0))
                poll.poll()
                if self._queue:
                    self._writable()
                if not self.closed:
                    self._readable()
        finally:
            self._handlers = handlers
        if self._delayed:
            self._loop.call_soon(self._deliver_delayed, context=self._context)

    def close(self) -> None:
        """Ends the connection without calling `ended`. Can be called again."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        close_all(self._connection.take_descriptors())
        for _, descriptors, _, _ in self._queue:
            close_all(descriptors)
        for frame in self._delayed:
            close_all(frame.descriptors)
        self._delayed.clear()
        self._queue.clear()
        self.queued_bytes = 0
        self._wake()

    def fail(self, error: Exception | None) -> None:
        """Ends the connection because of an invalid frame, or whatever else `error` says, and calls `ended`."""
        if not self.closed:
            self._ended(error)
            self.close()

    def _readable(self) -> None:
        connection, scheduler, delayed = self._connection, self._scheduler, self._delayed
        try:
            missing = connection.missing
            size = _READ if missing < _READ else min(missing, MAX_READ)
            if self._takes_descriptors and connection.requests:
                data, ancillary, flags, _ = self._socket.recvmsg(size, self._ancillary, _CLOSE_ON_EXEC)
                descriptors = _descriptors_of(ancillary, flags) if ancillary or flags & _TRUNCATED else ()
            else:
                data, descriptors = self._socket.recv(size), ()
            if not data:
                connection.receive_end()
                self.fail(None)
                return
            for frame in connection.receive(data, descriptors):
                if self.closed:
                    close_all(frame.descriptors)
                elif scheduler is not None and (delayed or (frame.kind in WORK and not scheduler.acquire())):
                    delayed.append(frame)  # also those behind it, to keep their order
                else:
                    self._handlers[frame.kind](frame)
            if self._on_partial is not None and connection.partial is not None:
                self._on_partial(*connection.partial)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ProtocolFault) as error:
            self.fail(error)
            return
        if delayed and scheduler is not None:
            scheduler.run(self._deliver_delayed)
            self._reading_paused = True
            self._loop.remove_reader(self._socket)

    def _deliver_delayed(self) -> None:
        """Delivers delayed frames: as a step of the scheduler, only one that makes work."""
        try:
            while self._delayed and not self.closed:
                frame = self._delayed.popleft()
                self._handlers[frame.kind](frame)
                if self._scheduler is not None and self._delayed and self._delayed[0].kind in WORK:
                    break
        except (OSError, ProtocolFault) as error:
            self.fail(error)
        if self.closed:
            return
        if self._delayed and self._scheduler is not None:
            self._scheduler.run(self._deliver_delayed)
        elif self._reading_paused:
            self._reading_paused = False
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._reading_paused and not self._peer_stalled:
            self._loop.add_reader(self._socket, self._readable)

    def _writable(self) -> None:
        if (error := self._flush()) is not None:
            self.fail(error)
            return
        if not self._queue:
            self._loop.remove_writer(self._socket)
        if self._peer_stalled and len(self._queue) < MAX_UNREAD:
            self._peer_stalled = False
            self._resume_reading()
        self._wake()

    def _flush(self) -> OSError | None:
        """Writes as many queued frames as the socket takes; returns the error of a broken connection."""
        while self._queue:
            data, descriptors, number, on_refused = self._queue[0]
            try:
                if descriptors:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
                    sent = self._socket.sendmsg([data], [rights])
                else:
                    sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS or on_refused is None:
                    return error
                close_all(descriptors)
                # Bypasses the protocol's state machine, which has counted the response: both kinds end the request.
                refusal = encode(Frame(FrameKind.REQUEST_FAILED, number, body=on_refused(error)))
                self.queued_bytes += len(refusal) - len(data)
                self._queue[0] = (refusal, (), number, None)
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            self.queued_bytes -= sent
            if sent < len(data):
                self._queue[0] = (memoryview(data)[sent:], (), number, None)
                return None
            self._queue.popleft()
        return None

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def _descriptors_of(ancillary: list[tuple[int, int, bytes]], flags: int) -> tuple[int, ...]:
    """Returns the descriptors that came with bytes. Raises `ProtocolFault` if the kernel truncated them."""
    descriptors = array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not _CLOSE_ON_EXEC:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    if flags & _TRUNCATED:
        close_all(tuple(descriptors))
        raise ProtocolFault("the kernel truncated the descriptors")
    return tuple(descriptors)


def close_all(descriptors: tuple[int, ...]) -> None:
    """Closes descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
