"""Calls from inside the host's process: cases that need the plugin's object or the caller's task.

`tests/conformance/test_calls.py` and `test_streams.py` have the cases that hold at every isolation level.
"""

import asyncio
import gc

import pytest

from nyx_stream.errors import PluginCallError, PluginStateError, PluginTimeout
from tests.plugin_fixtures import instance_of, until

CODE = """
    import asyncio

    class Main(Plugin):
        started = 0

        async def setup(self):
            self.gate = asyncio.Event()

        @export
        async def add(self, a: int, b: int = 1) -> int: return a + b
        @export
        async def fail(self): raise ValueError("on purpose")
        @export
        async def hang(self) -> int:
            await self.gate.wait()
            return 1
        @export
        async def stubborn(self) -> str:
            for _ in range(2):
                try: await asyncio.Event().wait()
                except asyncio.CancelledError: pass
            return "too late"
        @export
        async def count(self, upto: int):
            self.started += 1
            try:
                for number in range(upto): yield number
            finally:
                self.started -= 1
    """


@pytest.fixture
async def plugin(host, make):
    return await host.load(make("p", CODE, limits='call_timeout = "10s"\nconcurrency = 3\nqueue = 2'))


async def test_an_exception_of_a_plugin_is_the_cause_of_the_callers_error(plugin):
    """In one process, it is the plugin's own exception object."""
    with pytest.raises(PluginCallError, match="p: fail raised ValueError: on purpose") as caught:
        await plugin.call("fail")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_call_that_suppresses_its_cancellation_still_times_out(host, make, monkeypatch):
    """A method that ignores its cancellation is cancelled again, and its late result is discarded."""
    monkeypatch.setattr("nyx_stream.host.runtime.limits._RECANCEL_SECONDS", 0.01)
    plugin = await host.load(make("p", CODE, limits='call_timeout = "10ms"'))
    with pytest.raises(PluginTimeout):
        await plugin.call("stubborn")
    assert asyncio.current_task().cancelling() == 0


async def test_cancelling_a_queued_call_frees_its_place(plugin):
    """The other calls run, including one that is admitted in the same turn of the loop."""
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(5)]
    await until(lambda: plugin.stats().waiting == 2)
    instance_of(plugin).gate.set()
    calls[3].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in done if result == 1] == [1] * 4
    assert (plugin.stats().active, plugin.stats().waiting) == (0, 0)


async def test_a_stream_that_is_garbage_collected_ends(plugin):
    """Its `finally` runs, and it no longer counts as a running call."""
    items = plugin.stream("count", upto=9)
    await anext(items)
    assert instance_of(plugin).started == 1
    del items
    gc.collect()
    await until(lambda: instance_of(plugin).started == 0)
    await until(lambda: not plugin.stats().active)


async def test_unloading_ends_running_and_queued_calls(host, plugin):
    """Both get PluginStateError."""
    items = plugin.stream("count", upto=9)
    await anext(items)
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(4)]
    await until(lambda: plugin.stats().waiting == 2)
    await host.unload("p")
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, PluginStateError)
        assert "p: it was stopped during the call" in str(result)
    with pytest.raises(PluginStateError, match="it is stopped and takes no calls"):
        await anext(items)


async def test_a_failing_call_fails_its_task_group(plugin):
    """It does so as any task, and the plugin continues."""

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(plugin.call("hang"))
            group.create_task(plugin.call("fail"))

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert caught.group_contains(PluginCallError)
    assert await plugin.call("add", a=1) == 2
