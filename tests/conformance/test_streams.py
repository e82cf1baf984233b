"""Streams at every level: item by item, with back-pressure, closed when their consumer leaves."""

import asyncio

import pytest

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginCallError, PluginStateError, PluginTimeout
from tests.plugin_fixtures import until

CODE = """
    import asyncio
    from typing import AsyncIterator

    class Main(Plugin):
        made = 0
        open = 0

        @export
        async def count(self, upto: int) -> AsyncIterator[int]:
            self.open += 1
            try:
                for number in range(upto):
                    self.made = number
                    yield number
            finally:
                await asyncio.sleep(0)
                self.open -= 1
        @export
        async def typed(self) -> AsyncIterator[tuple[int, bytes]]:
            yield (1, b"\\xff")
            yield "one"
        @export
        async def stalls(self):
            yield 1
            await asyncio.Event().wait()
        @export
        async def breaks(self):
            yield 1
            raise ValueError("on purpose")
        @export
        async def large(self, size: int, number: int) -> AsyncIterator[str]:
            for _ in range(number):
                yield "x" * size
        @export
        async def stubborn(self):
            try: yield 1
            finally: raise ValueError("while closing")
        @export
        async def progress(self) -> tuple[int, int]: return self.made, self.open
    """


async def test_a_stream_gives_its_items(load):
    """Items come one by one, each validated, and a stream counts as one call."""
    plugin = await load(CODE)
    assert [item async for item in plugin.stream("count", upto=100)] == list(range(100))
    items = plugin.stream("typed")
    assert await anext(items) == (1, b"\xff")
    with pytest.raises(InvalidResult, match="p: typed: the result does not fit"):
        await anext(items)
    assert (plugin.stats().calls, plugin.stats().active) == (2, 0)


async def test_errors_of_a_stream_come_in_their_step(load):
    """An exception ends the stream after the items before it; wrong arguments end it at its first step."""
    plugin = await load(CODE)
    items = plugin.stream("breaks")
    assert await anext(items) == 1
    with pytest.raises(PluginCallError, match="p: breaks raised ValueError: on purpose"):
        await anext(items)
    with pytest.raises(InvalidArguments, match="p: count: upto: Input should be a valid integer"):
        await anext(plugin.stream("count", upto="many"))
    assert plugin.stats().active == 0


async def test_a_stream_does_not_run_ahead_of_its_consumer(load):
    """The generator goes on when its consumer asks for the next item, and not before."""
    plugin = await load(CODE)
    items = plugin.stream("count", upto=10**6)
    for number in range(5):
        assert await anext(items) == number
        assert await plugin.call("progress") == (number, 1)
    await items.aclose()
    assert (await plugin.call("progress"))[1] == 0


async def test_closing_a_stream_closes_the_generator(load, caplog):
    """When the consumer has closed, the generator's finally has run; what it raises there is logged."""
    plugin = await load(CODE)
    items = plugin.stream("count", upto=9)
    await anext(items)
    assert (await plugin.call("progress"))[1] == 1
    await items.aclose()
    assert (await plugin.call("progress"))[1] == 0
    items = plugin.stream("stubborn")
    await anext(items)
    await items.aclose()
    assert (await plugin.call("progress"))[1] == 0
    await until(lambda: "stubborn: closing the stream raised" in caplog.text)
    assert plugin.stats().active == 0


async def test_a_step_that_takes_too_long_ends_the_stream(load):
    """call_timeout bounds each step."""
    plugin = await load(CODE, limits='call_timeout = "200ms"')
    with pytest.raises(PluginTimeout):
        [item async for item in plugin.stream("stalls")]
    assert await plugin.call("progress") == (0, 0)


async def test_large_items_arrive_whole(load):
    """Items larger than any buffer on the way arrive, one at a time."""
    plugin = await load(CODE)
    sizes = [len(item) async for item in plugin.stream("large", size=3 * 2**20, number=5)]
    assert sizes == [3 * 2**20] * 5


async def test_unloading_ends_calls_and_streams(load, host):
    """A paused stream is closed with its plugin, and says so at its next step."""
    plugin = await load(CODE)
    items = plugin.stream("count", upto=9)
    await anext(items)
    stalled = plugin.stream("stalls")
    await anext(stalled)
    step = asyncio.ensure_future(anext(stalled))
    await asyncio.sleep(0)
    await host.unload("p")
    with pytest.raises(PluginStateError, match="it was stopped during the call"):
        await step
    with pytest.raises(PluginStateError, match="it is stopped and takes no calls"):
        await anext(items)
