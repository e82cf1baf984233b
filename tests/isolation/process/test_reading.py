"""Large results and items are read while they arrive, and in turns; all else about calls and streams is as ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from nyx_stream.errors import InvalidResult
from nyx_stream.isolation.remote.host.calls import RemoteCalls
from nyx_stream.isolation.remote.wire import large_value as reading
from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import Frame, Kind
from nyx_stream.isolation.remote.wire.messages import MethodFace, RemoteFault
from tests.isolation.process.test_turns import Clock, Worker
from tests.plugin_fixtures import until

TEXT = "a text, " * 100_000


class Calls(Worker):
    """A worker's end of a channel, and the calls of the host that go over it."""

    def __init__(self) -> None:
        self.clock = Clock()
        turns = FairScheduler()
        super().__init__(self.clock, turns)
        self.calls = RemoteCalls("p", self.channel, turns, lambda name: None)
        self.calls.offer([MethodFace(name="text", stream=False), MethodFace(name="texts", stream=True)])
        self.channel._receive = self._hand_over
        self.channel._growing = self.calls.grow

    def _hand_over(self, frame: Frame) -> None:
        take = {Kind.ITEM: self.calls.take_item, Kind.FAILED: self.calls.take_failed}
        take.get(frame.kind, self.calls.take)(frame)

    async def asked(self, kind: Kind) -> int:
        """Waits for a frame of the host; returns its number."""
        loop = asyncio.get_running_loop()
        self.socket.setblocking(False)
        frames = self.connection.receive(await loop.sock_recv(self.socket, 4096))
        self.socket.setblocking(True)
        assert [frame.kind for frame in frames] == [kind]
        return frames[0].id

    async def answer(self, kind: Kind, number: int, value: Any) -> None:
        await asyncio.to_thread(self.say, Frame(kind, number, body=to_json(value)))


@pytest.fixture
async def worker() -> AsyncIterator[Calls]:
    """A worker to which calls are made."""
    made = Calls()
    yield made
    made.close()
    made.clock.stop()


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no turn read more than one step, however fast the machine is."""
    monkeypatch.setattr(reading, "AT_ONCE", 0.0)


@pytest.mark.usefixtures("step_by_step")
async def test_the_loop_turns_while_a_result_is_read(worker):
    """What is left when the last of it has arrived is read in turns of the loop."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.asked(Kind.CALL)
    value = list(range(200_000))
    await worker.answer(Kind.RESULT, number, value)
    begin = worker.clock.turn
    assert await call == value
    assert worker.clock.turn - begin > 200


@pytest.mark.usefixtures("step_by_step")
async def test_items_come_in_order_one_for_each_demand(worker):
    """Large and small items, the end behind them, as they were sent."""
    got: list[Any] = []

    async def consume() -> None:
        async with aclosing(worker.calls.stream("texts", {})) as items:
            got.extend([item async for item in items])

    consumer = asyncio.create_task(consume())
    number = await worker.asked(Kind.OPEN)
    sent = [TEXT, 1, [TEXT], TEXT + "!", [1] * 50_000, "small"]
    for item in sent:
        await worker.answer(Kind.ITEM, number, item)
        assert await worker.asked(Kind.NEXT) == number
    worker.say(Frame(Kind.END, number))
    await consumer
    assert got == sent


@pytest.mark.usefixtures("step_by_step")
async def test_a_fault_behind_a_large_item_comes_behind_it(worker):
    """The consumer has the item first, also if its stream has failed while that was read."""
    items = worker.calls.stream("texts", {})
    first = asyncio.create_task(anext(items))
    number = await worker.asked(Kind.OPEN)
    await worker.answer(Kind.ITEM, number, TEXT)
    worker.say(Frame(Kind.FAILED, number, body=RemoteFault(reason="call", message="too bad").encode()))
    assert await first == TEXT
    with pytest.raises(Exception, match="too bad"):
        await anext(items)


@pytest.mark.usefixtures("step_by_step")
async def test_who_is_cancelled_meanwhile_has_no_part_of_it(worker):
    """A caller that is cancelled while its result is read ends at once; the next call is as ever."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.asked(Kind.CALL)
    await worker.answer(Kind.RESULT, number, list(range(200_000)))
    await until(lambda: worker.calls.active == 0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    call = asyncio.create_task(worker.calls.call("text", {}))
    await worker.answer(Kind.RESULT, await worker.asked(Kind.CALL), TEXT)
    assert await call == TEXT


async def test_an_item_for_one_who_has_gone_is_dropped(worker):
    """A stream that is closed while a large item arrives waits for the end of it in the worker, and no longer."""
    items = worker.calls.stream("texts", {})
    first = asyncio.create_task(anext(items))
    number = await worker.asked(Kind.OPEN)
    first.cancel()
    assert await worker.asked(Kind.CANCEL) == number
    await worker.answer(Kind.ITEM, number, TEXT)
    worker.say(Frame(Kind.FAILED, number, body=RemoteFault(reason="call", name="CancelledError").encode()))
    with pytest.raises(asyncio.CancelledError):
        await first
    assert worker.calls.active == 0


@pytest.mark.parametrize(
    "body", [b'"' + b"a" * 100_000, b'"' + b"a" * 100_000 + b'\\"', b"[" + b"1," * 100_000 + b"]", bytes(100_000)]
)
async def test_large_json_that_is_none_is_an_invalid_result(worker, body):
    """As it is for a small one, with the decoder's error as its cause."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.asked(Kind.CALL)
    await asyncio.to_thread(worker.say, Frame(Kind.RESULT, number, body=body))
    with pytest.raises(InvalidResult, match="another type than it declared") as raised:
        await call
    assert isinstance(raised.value.__cause__, ValueError)


async def test_what_arrives_is_read_before_the_rest_is_there(worker):
    """When the last of a text arrives, most of it has been read."""
    read: list[int] = []

    def counting(data: bytes) -> Any:
        read.append(len(data))
        return from_json(data)

    worker.calls._methods["text"] = worker.calls._methods["text"]._replace(decode=counting)
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.asked(Kind.CALL)
    data = worker.connection.send(Frame(Kind.RESULT, number, body=to_json(TEXT)))
    await asyncio.to_thread(worker.socket.sendall, data[:-1])
    await until(lambda: worker.host.wanted == 1)
    assert sum(read) > len(TEXT) // 2
    worker.socket.sendall(data[-1:])
    assert await call == TEXT
    assert max(read) < len(TEXT)
