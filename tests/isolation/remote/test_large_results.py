"""Large results and items are decoded while they arrive, in turns of the loop; calls and streams otherwise behave as
usual."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from nyx_stream.errors import InvalidResult
from nyx_stream.isolation.remote.host.calls import RemoteCalls
from nyx_stream.isolation.remote.wire import large_value as large_value
from nyx_stream.isolation.remote.wire.channel import FairScheduler
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, LargeBody
from nyx_stream.isolation.remote.wire.messages import MethodDescription, RemoteFault
from tests.isolation.remote.test_fair_scheduler import Clock, Worker
from tests.plugin_fixtures import until

TEXT = "a text, " * 100_000


class Calls(Worker):
    """A worker's end of a channel, and the host's calls over it."""

    def __init__(self) -> None:
        self.clock = Clock()
        scheduler = FairScheduler()
        super().__init__(self.clock, scheduler)
        self.calls = RemoteCalls("p", self.channel, scheduler, lambda name: None)
        self.calls.set_methods(
            [MethodDescription(name="text", stream=False), MethodDescription(name="texts", stream=True)]
        )
        self.handlers |= {
            FrameKind.RESULT: self.calls.on_result,
            FrameKind.ITEM: self.calls.on_item,
            FrameKind.END: self.calls.on_result,
            FrameKind.FAILED: self.calls.on_failed,
        }

    def on_partial(self, number: int, body: LargeBody) -> None:
        self.calls.on_partial(number, body)

    async def expect(self, kind: FrameKind) -> int:
        """Waits for a frame from the host; returns its number."""
        loop = asyncio.get_running_loop()
        self.socket.setblocking(False)
        frames = self.connection.receive(await loop.sock_recv(self.socket, 4096))
        self.socket.setblocking(True)
        assert [frame.kind for frame in frames] == [kind]
        return frames[0].id

    async def answer(self, kind: FrameKind, number: int, value: Any) -> None:
        await asyncio.to_thread(self.say, Frame(kind, number, body=to_json(value)))


@pytest.fixture
async def worker() -> AsyncIterator[Calls]:
    """A worker that receives calls."""
    made = Calls()
    yield made
    made.close()
    made.clock.stop()


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits each turn to one step, however fast the machine is."""
    monkeypatch.setattr(large_value, "STEP_BUDGET", 0.0)


@pytest.mark.usefixtures("step_by_step")
async def test_the_loop_turns_while_a_result_is_decoded(worker):
    """What is left when the last part arrives is decoded in turns of the loop."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.expect(FrameKind.CALL)
    value = list(range(200_000))
    await worker.answer(FrameKind.RESULT, number, value)
    begin = worker.clock.turn
    assert await call == value
    assert worker.clock.turn - begin > 200


@pytest.mark.usefixtures("step_by_step")
async def test_items_arrive_in_order_one_per_demand(worker):
    """Large and small items, and the end behind them, arrive as they were sent."""
    got: list[Any] = []

    async def consume() -> None:
        async with aclosing(worker.calls.stream("texts", {})) as items:
            got.extend([item async for item in items])

    consumer = asyncio.create_task(consume())
    number = await worker.expect(FrameKind.OPEN)
    sent = [TEXT, 1, [TEXT], TEXT + "!", [1] * 50_000, "small"]
    for item in sent:
        await worker.answer(FrameKind.ITEM, number, item)
        assert await worker.expect(FrameKind.NEXT) == number
    worker.say(Frame(FrameKind.END, number))
    await consumer
    assert got == sent


@pytest.mark.usefixtures("step_by_step")
async def test_a_fault_behind_a_large_item_arrives_behind_it(worker):
    """The consumer gets the item first, even if the stream failed while it was decoded."""
    items = worker.calls.stream("texts", {})
    first = asyncio.create_task(anext(items))
    number = await worker.expect(FrameKind.OPEN)
    await worker.answer(FrameKind.ITEM, number, TEXT)
    worker.say(Frame(FrameKind.FAILED, number, body=RemoteFault(reason="call", message="too bad").encode()))
    assert await first == TEXT
    with pytest.raises(Exception, match="too bad"):
        await anext(items)


@pytest.mark.usefixtures("step_by_step")
async def test_a_caller_cancelled_during_decoding_ends_at_once(worker):
    """The next call works as usual."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.expect(FrameKind.CALL)
    await worker.answer(FrameKind.RESULT, number, list(range(200_000)))
    await until(lambda: worker.calls.active == 0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    call = asyncio.create_task(worker.calls.call("text", {}))
    await worker.answer(FrameKind.RESULT, await worker.expect(FrameKind.CALL), TEXT)
    assert await call == TEXT


async def test_an_item_of_a_closed_stream_is_dropped(worker):
    """A stream that is closed while a large item arrives only waits until it has ended in the worker."""
    items = worker.calls.stream("texts", {})
    first = asyncio.create_task(anext(items))
    number = await worker.expect(FrameKind.OPEN)
    first.cancel()
    assert await worker.expect(FrameKind.CANCEL) == number
    await worker.answer(FrameKind.ITEM, number, TEXT)
    worker.say(Frame(FrameKind.FAILED, number, body=RemoteFault(reason="call", name="CancelledError").encode()))
    with pytest.raises(asyncio.CancelledError):
        await first
    assert worker.calls.active == 0


@pytest.mark.parametrize(
    "body", [b'"' + b"a" * 100_000, b'"' + b"a" * 100_000 + b'\\"', b"[" + b"1," * 100_000 + b"]", bytes(100_000)]
)
async def test_large_invalid_json_is_an_invalid_result(worker, body):
    """As small invalid JSON is, with the decoder's error as the cause."""
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.expect(FrameKind.CALL)
    await asyncio.to_thread(worker.say, Frame(FrameKind.RESULT, number, body=body))
    with pytest.raises(InvalidResult, match="another type than it declared") as raised:
        await call
    assert isinstance(raised.value.__cause__, ValueError)


async def test_decoding_begins_before_the_rest_has_arrived(worker):
    """When the last part of a text arrives, most of it has been decoded."""
    read: list[int] = []

    def counting(data: bytes) -> Any:
        read.append(len(data))
        return from_json(data)

    worker.calls._methods["text"] = worker.calls._methods["text"]._replace(decode=counting)
    call = asyncio.create_task(worker.calls.call("text", {}))
    number = await worker.expect(FrameKind.CALL)
    data = worker.connection.send(FrameKind.RESULT, number, body=to_json(TEXT))
    await asyncio.to_thread(worker.socket.sendall, data[:-1])
    await until(lambda: worker.host.missing == 1)
    assert sum(read) > len(TEXT) // 2
    worker.socket.sendall(data[-1:])
    assert await call == TEXT
    assert max(read) < len(TEXT)
