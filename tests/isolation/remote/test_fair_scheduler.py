"""A flood is processed in steps, and the host's loop turns between any two of them. Counted in turns, not in time."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from nyx_stream.isolation.remote.host.bodies import Downloads, send_evenly
from nyx_stream.isolation.remote.host.log import Output
from nyx_stream.isolation.remote.wire.body_stream import STEP, BodyStream, make_pipe
from nyx_stream.isolation.remote.wire.channel import MAX_READ, MAX_UNREAD, Channel, FairScheduler
from nyx_stream.isolation.remote.wire.frames import (
    HEADER,
    MAX_DESCRIPTORS,
    VERSION,
    Frame,
    FrameKind,
    LargeBody,
    ProtocolFault,
)
from nyx_stream.isolation.remote.wire.protocol import MAX_LOG_RECORDS, MAX_REQUESTS, ProtocolConnection
from tests.isolation.remote.test_protocol import pair
from tests.plugin_fixtures import until


class Clock:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self._loop = asyncio.get_running_loop()
        self._going = True
        self._tick()

    def _tick(self) -> None:
        self.turn += 1
        if self._going:
            self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._going = False


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    """A clock that counts until the test is over."""
    clock = Clock()
    yield clock
    clock.stop()


async def test_steps_run_one_per_turn_in_order(clock):
    """The first step runs at once, every other one in its own turn, also those that queue themselves again."""
    scheduler, had = FairScheduler(), []

    def step(name: str, again: int) -> None:
        had.append((name, clock.turn))
        if again:
            scheduler.run(lambda: step(name, again - 1))

    for name in "abc":
        scheduler.run(lambda name=name: step(name, 2))
    assert had == [("a", clock.turn)]
    await until(lambda: len(had) == 9)
    assert [name for name, _ in had] == list("aabcabcbc")  # "a" asked again before "b" did
    assert max(Counter(turn for _, turn in had).values()) == 1


class Worker:
    """The worker's end of a channel, as bytes. `taken` has each frame that the host received, and in which turn."""

    def __init__(self, clock: Clock, scheduler: FairScheduler) -> None:
        host, self.connection = pair()
        ours, self.socket = socket.socketpair()
        self.taken: list[tuple[Frame, int]] = []
        self.ended: list[Exception | None] = []
        self.host: ProtocolConnection = host
        self.handlers = dict.fromkeys(FrameKind, lambda frame: self.taken.append((frame, clock.turn)))
        self.channel = Channel(
            ours,
            host,
            self.handlers,
            self.ended.append,
            takes_descriptors=False,
            scheduler=scheduler,
            on_partial=self.on_partial,
        )

    def on_partial(self, number: int, body: LargeBody) -> None:
        """Ignores incomplete frames."""

    def say(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(self.connection.send(*frame) for frame in frames))

    def close(self) -> None:
        self.channel.close()
        self.socket.close()


@pytest.fixture
async def workers(clock) -> AsyncIterator[list[Worker]]:
    """Two workers of one host."""
    scheduler = FairScheduler()
    made = [Worker(clock, scheduler) for _ in range(2)]
    yield made
    for worker in made:
        worker.close()


async def test_one_frame_that_makes_work_is_delivered_per_turn(workers):
    """Log records and requests of all workers share the turns; they arrive in order, and none is lost."""
    sent = [Frame(FrameKind.LOG) for _ in range(MAX_LOG_RECORDS)] + [
        Frame(FrameKind.REQUEST, number) for number in range(1, 100)
    ]
    for worker in workers:
        worker.say(*sent)
    await until(lambda: all(len(worker.taken) == len(sent) for worker in workers))
    turns = Counter(turn for worker in workers for _, turn in worker.taken)
    assert max(turns.values()) == 1
    for worker in workers:
        assert [frame for frame, _ in worker.taken] == sent
    firsts = [worker.taken[0][1] for worker in workers]
    assert abs(firsts[0] - firsts[1]) <= 2  # neither waits for the other's flood


async def test_a_result_does_not_overtake_earlier_frames(workers):
    """A frame that makes no work needs no turn of its own, but waits for the frames before it."""
    worker = workers[0]
    worker.connection.receive(worker.host.send(FrameKind.CALL, 1))
    worker.say(Frame(FrameKind.LOG), Frame(FrameKind.LOG), Frame(FrameKind.RESULT, 1), Frame(FrameKind.LOG))
    await until(lambda: len(worker.taken) == 4)
    kinds, turns = zip(*((frame.kind, turn) for frame, turn in worker.taken), strict=True)
    assert kinds == (FrameKind.LOG, FrameKind.LOG, FrameKind.RESULT, FrameKind.LOG)
    assert turns[0] < turns[1] == turns[2] < turns[3]


async def test_reading_pauses_while_frames_are_delayed(workers):
    """What the worker sends meanwhile stays in the socket, so the worker has to wait and the host stores none of it."""
    worker = workers[0]
    worker.say(*(Frame(FrameKind.REQUEST, number) for number in range(1, 100)))
    await until(lambda: len(worker.taken) > 1)
    worker.socket.sendall(b"no frame at all")
    await until(lambda: len(worker.taken) == 98)
    assert worker.ended == []
    await until(lambda: worker.ended)
    assert len(worker.taken) == 99


async def test_a_closed_channel_delivers_nothing(workers):
    """Frames that were delayed when the channel was closed are dropped."""
    worker = workers[0]
    worker.say(*(Frame(FrameKind.REQUEST, number) for number in range(1, 100)))
    await until(lambda: len(worker.taken) == 5)
    worker.channel.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(worker.taken) == 5


async def test_a_large_body_is_read_in_steps(workers, clock):
    """No turn reads more than its share of a megabyte."""
    worker = workers[0]
    worker.connection.receive(worker.host.send(FrameKind.CALL, 1))
    begin = clock.turn
    await asyncio.to_thread(worker.say, Frame(FrameKind.RESULT, 1, body=bytes(2**20)))
    await until(lambda: worker.taken)
    ((frame, turn),) = worker.taken
    assert len(frame.body) == 2**20
    assert turn - begin >= 2**20 // MAX_READ


async def test_a_printed_line_takes_a_turn(clock):
    """Lines that were printed at once are written one per turn, and the last ones aren't lost."""
    scheduler, taken = FairScheduler(), []
    reading, writing = os.pipe2(os.O_CLOEXEC)
    output = Output(reading, lambda line: taken.append((line, clock.turn)), scheduler)
    os.write(writing, b"".join(b"%d\n" % number for number in range(9)) + b"cut")
    os.close(writing)
    await until(lambda: len(taken) == 5)
    assert max(Counter(turn for _, turn in taken).values()) == 1
    output.drain()
    output.close()
    assert [line for line, _ in taken] == [*map(str, range(9)), "cut"]


async def test_a_body_is_sent_in_steps(clock):
    """The loop turns between chunks, even if all are there at once and the worker takes them at once."""
    size = 10 * STEP

    async def closed() -> None:
        over.set()

    over = asyncio.Event()
    downloads = Downloads("p")
    begin = clock.turn
    pipe = BodyStream(socket.socket(fileno=downloads.begin(lambda pipe: send_evenly(pipe, bytes(size)), closed)))
    got = 0
    while (piece := await pipe.receive(lambda fault: AssertionError(fault))) is not None:
        got += len(piece)
    await over.wait()
    assert got == size
    assert clock.turn - begin >= size // STEP
    pipe.close()
    await downloads.close()


async def test_a_body_arrives_in_steps(clock):
    """The host reads one step of a body per turn, even if all of it has arrived."""
    ours, theirs = make_pipe()
    with socket.socket(fileno=theirs) as worker:
        worker.sendall((10 * STEP).to_bytes(4, "big") + bytes(10 * STEP))
        got = 0
        while got < 10 * STEP:
            before = clock.turn
            piece = await ours.receive(lambda fault: AssertionError(fault))
            assert 0 < len(piece) <= STEP
            assert clock.turn > before
            got += len(piece)
        ours.close()


async def test_a_worker_that_reads_no_responses_is_not_read(clock):
    """So few responses, and descriptors, wait for it; once it reads them, the host reads again."""
    host, _ = pair()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    answered: list[int] = []

    def answer(frame: Frame) -> None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        channel.send(FrameKind.RESPONSE, frame.id, body=bytes(10_000), descriptors=(descriptor,))
        answered.append(frame.id)

    async def turns(count: int) -> None:
        end = clock.turn + count
        await until(lambda: clock.turn > end)

    channel = Channel(
        ours,
        host,
        {FrameKind.REQUEST: answer},
        lambda _: None,
        takes_descriptors=False,
        scheduler=FairScheduler(),
    )
    for number in range(1, MAX_REQUESTS + 1):
        theirs.send(HEADER.pack(2, VERSION, 0, FrameKind.REQUEST, 0, number) + b"{}")
        await turns(3)
    assert channel.queued_frames == MAX_UNREAD
    assert len(answered) < MAX_REQUESTS
    while len(answered) < MAX_REQUESTS:
        with suppress(BlockingIOError):
            _, descriptors, _, _ = socket.recv_fds(theirs, MAX_READ, MAX_DESCRIPTORS)
            for descriptor in descriptors:
                os.close(descriptor)
        await turns(1)
    assert answered == list(range(1, MAX_REQUESTS + 1))
    channel.close()
    theirs.close()


async def test_a_fault_is_reported_before_the_socket_closes():
    """A host kills a worker that closes its channel, which must have reported the reason by then."""
    host, _ = pair()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reported: list[Exception | None] = []

    def ended(error: Exception | None) -> None:
        reported.append(error)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)

    channel = Channel(ours, host, {}, ended, takes_descriptors=False)
    channel.fail(fault := ProtocolFault("on purpose"))
    assert reported == [fault]
    assert theirs.recv(1) == b""
    theirs.close()
