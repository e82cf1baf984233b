"""However the transfer of a body to a worker ends, nothing of it is left."""

import asyncio
import os

from nyx_stream.isolation.remote.host.bodies import Downloads
from nyx_stream.isolation.remote.wire.body_stream import BodyStream


async def test_a_body_that_has_just_begun_is_closed() -> None:
    """The worker can end in the same turn of the loop in which it is answered."""
    downloads, closed = Downloads("weather"), asyncio.Event()
    ours: list[BodyStream] = []

    async def send(pipe: BodyStream) -> None:
        ours.append(pipe)
        await asyncio.Event().wait()

    async def close() -> None:
        closed.set()

    theirs = downloads.begin(send, close)
    await downloads.close()
    os.close(theirs)
    assert closed.is_set()
    assert [pipe.socket.fileno() for pipe in ours] == [-1]


async def test_a_worker_that_closes_its_end_ends_the_body() -> None:
    """The source is closed once, even if closing takes long."""
    downloads, begun, closed = Downloads("weather"), asyncio.Event(), asyncio.Event()
    times = 0

    async def send(pipe: BodyStream) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def close() -> None:
        nonlocal times
        times += 1
        for _ in range(5):
            await asyncio.sleep(0)
        closed.set()

    os.close(downloads.begin(send, close))
    await begun.wait()
    async with asyncio.timeout(30):
        await closed.wait()
    await downloads.close()
    assert times == 1
