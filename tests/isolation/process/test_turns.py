"""A flood is taken in pieces: between any two of them the host's loop turns. Counted in turns, not in time."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from nyx_stream.isolation.remote.host.bodies import Downloads, send_evenly
from nyx_stream.isolation.remote.host.output import Output
from nyx_stream.isolation.remote.wire.body_stream import STEP, BodyStream, make_pipe
from nyx_stream.isolation.remote.wire.channel import MOST_UNREAD, READ_MOST, Channel
from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import HEADER, MAX_DESCRIPTORS, VERSION, Frame, Kind, ProtocolFault
from nyx_stream.isolation.remote.wire.protocol import LOG_RECORDS, MAX_ASKS, ProtocolConnection
from tests.isolation.process.test_protocol import pair
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


async def test_a_turn_is_had_once_in_the_order_asked_for(clock):
    """The first piece runs at once, the others in a turn each, also those that ask again; nobody is passed over."""
    turns, had = FairScheduler(), []

    def piece(name: str, again: int) -> None:
        had.append((name, clock.turn))
        if again:
            turns.next(lambda: piece(name, again - 1))

    for name in "abc":
        turns.next(lambda name=name: piece(name, 2))
    assert had == [("a", clock.turn)]
    await until(lambda: len(had) == 9)
    assert [name for name, _ in had] == list("aabcabcbc")  # "a" asked again before "b" did
    assert max(Counter(turn for _, turn in had).values()) == 1


class Worker:
    """The worker's end of a channel, as bytes; `taken` has each frame that the host was handed, and in which turn."""

    def __init__(self, clock: Clock, turns: FairScheduler) -> None:
        host, self.connection = pair()
        ours, self.socket = socket.socketpair()
        self.taken: list[tuple[Frame, int]] = []
        self.ended: list[Exception | None] = []
        self.host: ProtocolConnection = host
        self.channel = Channel(
            ours,
            host,
            lambda frame: self.taken.append((frame, clock.turn)),
            self.ended.append,
            takes_descriptors=False,
            turns=turns,
        )

    def say(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(self.connection.send(frame) for frame in frames))

    def close(self) -> None:
        self.channel.close()
        self.socket.close()


@pytest.fixture
async def workers(clock) -> AsyncIterator[list[Worker]]:
    """Two workers of one host."""
    turns = FairScheduler()
    made = [Worker(clock, turns) for _ in range(2)]
    yield made
    for worker in made:
        worker.close()


async def test_of_frames_that_make_work_one_is_handed_over_in_a_turn(workers):
    """Log records and requests of all workers share the turns; they come in order, and none is lost."""
    sent = [Frame(Kind.LOG) for _ in range(LOG_RECORDS)] + [Frame(Kind.ASK, number) for number in range(1, 100)]
    for worker in workers:
        worker.say(*sent)
    await until(lambda: all(len(worker.taken) == len(sent) for worker in workers))
    turns = Counter(turn for worker in workers for _, turn in worker.taken)
    assert max(turns.values()) == 1
    for worker in workers:
        assert [frame for frame, _ in worker.taken] == sent
    firsts = [worker.taken[0][1] for worker in workers]
    assert abs(firsts[0] - firsts[1]) <= 2  # neither waits for the other's flood


async def test_a_result_is_not_handed_over_before_what_was_said_first(workers):
    """A frame without work waits for no turn of its own, but for those in front of it."""
    worker = workers[0]
    worker.connection.receive(worker.host.send(Frame(Kind.CALL, 1)))
    worker.say(Frame(Kind.LOG), Frame(Kind.LOG), Frame(Kind.RESULT, 1), Frame(Kind.LOG))
    await until(lambda: len(worker.taken) == 4)
    kinds, turns = zip(*((frame.kind, turn) for frame, turn in worker.taken), strict=True)
    assert kinds == (Kind.LOG, Kind.LOG, Kind.RESULT, Kind.LOG)
    assert turns[0] < turns[1] == turns[2] < turns[3]


async def test_nothing_is_read_from_a_worker_that_waits_for_its_turn(workers):
    """What it sends meanwhile stays in the socket: it is made to wait, and its host keeps none of it."""
    worker = workers[0]
    worker.say(*(Frame(Kind.ASK, number) for number in range(1, 100)))
    await until(lambda: len(worker.taken) > 1)
    worker.socket.sendall(b"no frame at all")
    await until(lambda: len(worker.taken) == 98)
    assert worker.ended == []
    await until(lambda: worker.ended)
    assert len(worker.taken) == 99


async def test_a_closed_channel_hands_nothing_over(workers):
    """What was waiting for its turn when the channel was closed is dropped."""
    worker = workers[0]
    worker.say(*(Frame(Kind.ASK, number) for number in range(1, 100)))
    await until(lambda: len(worker.taken) == 5)
    worker.channel.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(worker.taken) == 5


async def test_a_large_body_is_read_in_steps(workers, clock):
    """Of a megabyte no turn reads more than its share."""
    worker = workers[0]
    worker.connection.receive(worker.host.send(Frame(Kind.CALL, 1)))
    begin = clock.turn
    await asyncio.to_thread(worker.say, Frame(Kind.RESULT, 1, body=bytes(2**20)))
    await until(lambda: worker.taken)
    ((frame, turn),) = worker.taken
    assert len(frame.body) == 2**20
    assert turn - begin >= 2**20 // READ_MOST


async def test_a_printed_line_takes_a_turn(clock):
    """Lines that were printed at once are written one in a turn, and what is left at the end is not lost."""
    turns, taken = FairScheduler(), []
    reading, writing = os.pipe2(os.O_CLOEXEC)
    output = Output(reading, lambda line: taken.append((line, clock.turn)), turns)
    os.write(writing, b"".join(b"%d\n" % number for number in range(9)) + b"cut")
    os.close(writing)
    await until(lambda: len(taken) == 5)
    assert max(Counter(turn for _, turn in taken).values()) == 1
    output.drain()
    output.close()
    assert [line for line, _ in taken] == [*map(str, range(9)), "cut"]


async def test_a_body_leaves_in_steps(clock):
    """Chunks that are there at once, to a worker that takes them at once, still let the loop turn."""
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
    """Of a body that is here already, the host reads one step in a turn of the loop."""
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


async def test_a_worker_that_takes_no_answers_is_read_no_more(clock):
    """So the answers that wait for it, and their descriptors, are few; when it takes them, all goes on."""
    host, _ = pair()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    answered: list[int] = []

    def answer(frame: Frame) -> None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        channel.send(Kind.ANSWER, frame.id, body=bytes(10_000), descriptors=(descriptor,))
        answered.append(frame.id)

    async def turns(count: int) -> None:
        end = clock.turn + count
        await until(lambda: clock.turn > end)

    channel = Channel(ours, host, answer, lambda _: None, takes_descriptors=False, turns=FairScheduler())
    for number in range(1, MAX_ASKS + 1):
        theirs.send(HEADER.pack(2, VERSION, 0, Kind.ASK, 0, number) + b"{}")
        await turns(3)
    assert len(channel._queue) == MOST_UNREAD
    assert len(answered) < MAX_ASKS
    while len(answered) < MAX_ASKS:
        with suppress(BlockingIOError):
            _, descriptors, _, _ = socket.recv_fds(theirs, READ_MOST, MAX_DESCRIPTORS)
            for descriptor in descriptors:
                os.close(descriptor)
        await turns(1)
    assert answered == list(range(1, MAX_ASKS + 1))
    channel.close()
    theirs.close()


async def test_a_fault_is_told_before_the_other_side_sees_the_end():
    """A host kills whoever has closed the channel: a worker would be dead before it had said why."""
    host, _ = pair()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    told: list[Exception | None] = []

    def ended(error: Exception | None) -> None:
        told.append(error)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)

    channel = Channel(ours, host, lambda _: None, ended, takes_descriptors=False)
    channel.fail(fault := ProtocolFault("on purpose"))
    assert told == [fault]
    assert theirs.recv(1) == b""
    theirs.close()
