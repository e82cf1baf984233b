"""Calls: validated both ways, bounded in time and number, and never able to harm their caller."""

import asyncio
import gc

import anyio
import pytest

from nyx_stream.errors import (
    FilesystemDenied,
    InvalidArguments,
    InvalidResult,
    PluginBusy,
    PluginCallError,
    PluginStateError,
    PluginTimeout,
    UnknownMethod,
)
from tests.host.waiting import until

CODE = """
    import asyncio
    from nyx_stream.errors import FilesystemDenied

    class Main(Plugin):
        started = 0
        gate = None

        async def setup(self):
            self.gate = asyncio.Event()

        @export
        async def add(self, a: int, b: int = 1) -> int: return a + b
        @export
        async def kinds(self, *, only: float, **rest: int) -> dict[str, float]: return {"only": only, **rest}
        @export
        async def wrong(self) -> int: return "no number"
        @export
        async def unannotated(self, what): return {"what": what, "list": [1, 2.5, None]}
        @export
        async def socket(self): return object()
        @export
        async def fail(self): raise ValueError("on purpose")
        @export
        async def leave(self): raise SystemExit(3)
        @export
        async def cancelled(self): raise asyncio.CancelledError
        @export
        async def denied(self):
            raise FilesystemDenied(
                plugin="p", capability="files", action="read", target="/x", rule=None, reason="no rule"
            )
        @export
        async def hang(self) -> int:
            self.started += 1
            try:
                await self.gate.wait()
                return 1
            finally:
                self.started -= 1
        @export
        async def stubborn(self) -> str:
            for _ in range(2):
                try: await asyncio.Event().wait()
                except asyncio.CancelledError: pass
            return "too late"
        @export
        async def open(self): self.gate.set()
        @export
        async def running(self) -> int: return self.started
        async def hidden(self): return 1
        @export
        async def count(self, upto: int):
            self.started += 1
            try:
                for number in range(upto): yield number
            finally:
                self.started -= 1
        @export
        async def typed(self) -> AsyncIterator[int]:
            yield "1"
            yield "one"
        @export
        async def stalls(self):
            yield 1
            await asyncio.Event().wait()
        @export
        async def breaks(self):
            yield 1
            raise ValueError("on purpose")
    """


@pytest.fixture
async def plugin(host, make):
    limits = 'call_timeout = "10s"\nconcurrency = 3\nqueue = 2'
    return await host.load(
        make("p", "from typing import AsyncIterator\n" + CODE.replace("\n    ", "\n"), limits=limits)
    )


def running(plugin):
    return plugin._entry.supervisor._level._plugin.started


async def test_arguments_and_results_are_validated(plugin):
    """Values are converted as the annotations say; defaults, keyword-only and open arguments work."""
    assert await plugin.call("add", a="2") == 3
    assert await plugin.call("add", a=2, b=5) == 7
    assert await plugin.call("kinds", only=1, x="2") == {"only": 1.0, "x": 2}
    assert await plugin.call("unannotated", what="x") == {"what": "x", "list": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "p: add: a: Missing required argument"),
        (
            {"a": "x", "b": []},
            "a: Input should be a valid integer, unable to parse string as an integer; b: Input should",
        ),
        ({"a": 1, "c": 2}, "p: add: c: Unexpected keyword argument"),
        ({"a": 1, "self": 2}, "p: add: self: Unexpected keyword argument"),
        ({"a": 1, "method": 2}, "p: add: method: Unexpected keyword argument"),
    ],
)
async def test_wrong_arguments_are_all_named(plugin, arguments, text):
    """Arguments that do not fit are one error that names each of them and shows no value."""
    with pytest.raises(InvalidArguments) as caught:
        await plugin.call("add", **arguments)
    assert text in str(caught.value)
    assert plugin.stats().failed == 1


async def test_a_wrong_result_is_the_plugins_fault(plugin):
    """A result that does not fit, or cannot be encoded, is InvalidResult and nothing of it gets out."""
    with pytest.raises(InvalidResult, match="p: wrong: the result does not fit: Input should be a valid integer"):
        await plugin.call("wrong")
    with pytest.raises(InvalidResult, match="p: socket: the result does not fit"):
        await plugin.call("socket")


async def test_what_a_plugin_raises_is_chained(plugin):
    """An exception of the plugin is a PluginCallError with the original as its cause; a denial stays itself."""
    with pytest.raises(PluginCallError, match="p: fail raised ValueError: on purpose") as caught:
        await plugin.call("fail")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(PluginCallError, match="p: leave raised SystemExit: 3"):
        await plugin.call("leave")
    with pytest.raises(FilesystemDenied, match="p: files read /x denied: no rule"):
        await plugin.call("denied")


async def test_a_plugin_cannot_cancel_its_caller(plugin):
    """CancelledError raised by the plugin itself is an error like any other; the host's task goes on."""
    with pytest.raises(PluginCallError, match="p: cancelled raised CancelledError"):
        await plugin.call("cancelled")
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("name", ["nothing", "hidden", "setup", "_context", "spawn", "__init__", "log"])
async def test_only_exported_methods_can_be_called(plugin, name):
    """Whatever is not exported does not exist for the host, and the error says what does."""
    with pytest.raises(UnknownMethod, match=f"exports no method '{name}'; it exports add, breaks, "):
        await plugin.call(name)


async def test_streams_and_calls_are_told_apart(plugin):
    """A stream cannot be called and a method cannot be streamed; the error says what to use."""
    with pytest.raises(UnknownMethod, match=r"count is a stream: use stream\(\)"):
        await plugin.call("count", upto=1)
    with pytest.raises(UnknownMethod, match=r"add is no stream: use call\(\)"):
        await anext(plugin.stream("add", a=1))


async def test_a_call_that_takes_too_long_is_cancelled(host, make):
    """After call_timeout the method is cancelled and the caller gets PluginTimeout; the plugin goes on."""
    plugin = await host.load(make("p", CODE.replace("-> AsyncIterator[int]", ""), limits='call_timeout = "30ms"'))
    with pytest.raises(PluginTimeout, match=r"p: hang took longer than 0\.03 s"):
        await plugin.call("hang")
    assert running(plugin) == 0
    assert await plugin.call("add", a=1) == 2
    assert (plugin.stats().timeouts, plugin.stats().failed) == (1, 1)
    with pytest.raises(PluginTimeout):
        [item async for item in plugin.stream("stalls")]


async def test_a_call_that_swallows_its_cancellation_still_ends_in_a_timeout(host, make, monkeypatch):
    """A method that ignores its cancellation is cancelled again, and its late result is thrown away."""
    monkeypatch.setattr("nyx_stream.host.runtime.limits._AGAIN", 0.01)
    plugin = await host.load(make("p", CODE.replace("-> AsyncIterator[int]", ""), limits='call_timeout = "10ms"'))
    with pytest.raises(PluginTimeout):
        await plugin.call("stubborn")
    assert asyncio.current_task().cancelling() == 0


async def test_cancelling_the_caller_cancels_the_call(plugin):
    """The method runs in its caller's task: cancelled with it, in asyncio's way and in anyio's."""
    task = asyncio.create_task(plugin.call("hang"))
    await until(lambda: running(plugin) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running(plugin) == 0
    with anyio.move_on_after(0.01) as scope:
        await plugin.call("hang")
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await plugin.call("hang")
    assert running(plugin) == 0


async def test_calls_beyond_the_limit_wait_then_are_refused_then_let_in_again(plugin):
    """Three calls run, two wait, the next is refused at once; when room is free again all go through."""
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(5)]
    await until(lambda: (plugin.stats().active, plugin.stats().waiting) == (3, 2))
    with pytest.raises(PluginBusy, match="p: 3 calls run and 2 wait; nothing was started"):
        await plugin.call("add", a=1)
    assert running(plugin) == 3
    plugin._entry.supervisor._level._plugin.gate.set()
    assert await asyncio.gather(*calls) == [1] * 5
    assert await plugin.call("add", a=1) == 2
    stats = plugin.stats()
    assert (stats.calls, stats.refused, stats.failed, stats.active, stats.waiting) == (7, 1, 0, 0, 0)


async def test_a_waiting_call_that_is_cancelled_takes_no_room(plugin):
    """Cancelling a call in the queue gives its place up, whoever is let in meanwhile."""
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(5)]
    await until(lambda: plugin.stats().waiting == 2)
    plugin._entry.supervisor._level._plugin.gate.set()
    calls[3].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in done if result == 1] == [1] * 4
    assert (plugin.stats().active, plugin.stats().waiting) == (0, 0)


async def test_a_stream_gives_its_items(plugin):
    """Items come one by one, are validated one by one, and a stream counts as one call."""
    assert [item async for item in plugin.stream("count", upto=3)] == [0, 1, 2]
    items = plugin.stream("typed")
    assert await anext(items) == 1
    with pytest.raises(InvalidResult, match="p: typed: the result does not fit"):
        await anext(items)
    assert plugin.stats().calls == 2
    assert plugin.stats().active == 0


async def test_a_stream_that_raises_or_gets_wrong_arguments(plugin):
    """Errors of a stream are those of a call, in the step where they happen."""
    items = plugin.stream("breaks")
    assert await anext(items) == 1
    with pytest.raises(PluginCallError, match="p: breaks raised ValueError: on purpose"):
        await anext(items)
    with pytest.raises(InvalidArguments, match="p: count: upto: Input should be a valid integer"):
        await anext(plugin.stream("count", upto="many"))
    assert plugin.stats().active == 0


async def test_closing_or_forgetting_a_stream_ends_it(plugin):
    """A stream that is closed, or no longer referred to, runs its finally and gives its room back."""
    items = plugin.stream("count", upto=9)
    await anext(items)
    assert running(plugin) == 1
    await items.aclose()
    assert running(plugin) == 0
    items = plugin.stream("count", upto=9)
    await anext(items)
    del items
    gc.collect()
    await until(lambda: running(plugin) == 0)
    await until(lambda: not plugin.stats().active)


async def test_unloading_ends_calls_and_streams(host, plugin):
    """Calls under way and waiting ones get PluginStateError; a paused stream is closed and says so at its next step."""
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


async def test_calls_work_inside_a_task_group(plugin):
    """A failing call in a task group fails the group as any task does, and leaves the plugin running."""

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(plugin.call("hang"))
            group.create_task(plugin.call("fail"))

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert caught.group_contains(PluginCallError)
    assert await plugin.call("add", a=1) == 2
