"""Calls at every level: validated both ways, bounded, cancelled for good, and typed errors for everything else."""

import asyncio

import anyio
import pytest

from nyx_stream.errors import (
    FilesystemDenied,
    InvalidArguments,
    InvalidResult,
    PluginBusy,
    PluginCallError,
    PluginTimeout,
    UnknownMethod,
)
from tests.plugin_fixtures import until

CODE = """
    import asyncio
    from nyx_stream.errors import FilesystemDenied

    class Main(Plugin):
        async def setup(self):
            self.running = 0
            self.gate = asyncio.Event()

        @export
        async def add(self, a: int, b: int = 1) -> int: return a + b
        @export
        async def kinds(self, *, only: float, **rest: int) -> dict[str, float]: return {"only": only, **rest}
        @export
        async def wrong(self) -> int: return "no number"
        @export
        async def plain(self, what): return {"what": what, "list": [1, 2.5, None]}
        @export
        async def thing(self): return object()
        @export
        async def fail(self): raise ValueError("on purpose")
        @export
        async def leave(self): raise SystemExit(3)
        @export
        async def cancelled(self): raise asyncio.CancelledError
        @export
        async def denied(self):
            raise FilesystemDenied(
                plugin="other", capability="files", action="read", target="/x",
                rule="r", reason="no rule", hint="a\\nb")
        @export
        async def hang(self) -> int:
            self.running += 1
            try:
                await self.gate.wait()
                return 1
            finally:
                self.running -= 1
        @export
        async def open(self): self.gate.set()
        async def hidden(self): return 1
        @export
        async def items(self): yield 1
        @export
        async def count(self) -> int: return self.running
    """


async def running(plugin, count):
    """Waits until so many calls run inside the plugin."""
    while await plugin.call("count") != count:  # noqa: ASYNC110  # the plugin tells when it is asked
        await asyncio.sleep(0)


async def test_arguments_and_results_are_validated(load):
    """Values are converted as the annotations say; defaults, keyword-only and open arguments work."""
    plugin = await load(CODE)
    assert await plugin.call("add", a="2") == 3
    assert await plugin.call("add", a=2, b=5) == 7
    assert await plugin.call("kinds", only=1, x="2") == {"only": 1.0, "x": 2}
    assert await plugin.call("plain", what="x\0\x1b\ud7ff🐍") == {"what": "x\0\x1b\ud7ff🐍", "list": [1, 2.5, None]}
    assert (plugin.methods["add"], plugin.stats().failed) == (False, 0)


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
async def test_wrong_arguments_are_the_callers_fault(load, arguments, text):
    """Arguments that do not fit are InvalidArguments, which names all of them and shows no value."""
    plugin = await load(CODE)
    with pytest.raises(InvalidArguments) as caught:
        await plugin.call("add", **arguments)
    assert text in str(caught.value)
    assert plugin.stats().failed == 1


async def test_faults_of_the_plugin_are_typed_errors_and_it_goes_on(load):
    """A wrong result, an exception, an exit and a cancellation out of itself are errors of that call alone."""
    plugin = await load(CODE)
    with pytest.raises(InvalidResult, match="p: wrong: the result does not fit: Input should be a valid integer"):
        await plugin.call("wrong")
    with pytest.raises(InvalidResult, match="p: thing: the result does not fit"):
        await plugin.call("thing")
    with pytest.raises(PluginCallError, match="p: fail raised ValueError: on purpose") as caught:
        await plugin.call("fail")
    assert "on purpose" in str(caught.value.__cause__)
    with pytest.raises(PluginCallError, match="p: leave raised SystemExit: 3"):
        await plugin.call("leave")
    with pytest.raises(PluginCallError, match="p: cancelled raised CancelledError"):
        await plugin.call("cancelled")
    assert asyncio.current_task().cancelling() == 0
    assert await plugin.call("add", a=1) == 2


async def test_only_exported_methods_can_be_called(load):
    """The error for every other name says what the plugin exports."""
    plugin = await load(CODE)
    for name in ("nothing", "hidden", "setup", "_context", "spawn", "__init__", "log"):
        with pytest.raises(UnknownMethod, match=f"it doesn't export a method '{name}'; it exports add, cancelled, "):
            await plugin.call(name)


async def test_streams_and_calls_are_told_apart(load):
    """A stream can't be called and a method can't be streamed; the error says which method to use."""
    plugin = await load(CODE)
    with pytest.raises(UnknownMethod, match=r"items is a stream: use stream\(\)"):
        await plugin.call("items")
    with pytest.raises(UnknownMethod, match=r"add is not a stream: use call\(\)"):
        await anext(plugin.stream("add", a=1))


async def test_a_denial_passes_through_as_itself(load):
    """A plugin that does not catch a denial lets its caller see it, field by field."""
    plugin = await load(CODE)
    with pytest.raises(FilesystemDenied, match="files read /x denied: no rule\na\nb") as caught:
        await plugin.call("denied")
    error = caught.value
    assert (error.capability, error.action, error.target, error.rule) == ("files", "read", "/x", "r")


async def test_a_call_that_takes_too_long_is_cancelled(load):
    """After call_timeout the method is cancelled and the caller gets PluginTimeout; the plugin goes on."""
    plugin = await load(CODE, limits='call_timeout = "100ms"')
    with pytest.raises(PluginTimeout, match=r"p: hang took longer than 0\.1 s"):
        await plugin.call("hang")
    assert await plugin.call("count") == 0
    assert (plugin.stats().timeouts, plugin.stats().failed) == (1, 1)


async def test_cancelling_the_caller_cancels_the_call(load):
    """The method is cancelled with its caller, in asyncio's way and in anyio's, and is over when the caller goes on."""
    plugin = await load(CODE)
    task = asyncio.create_task(plugin.call("hang"))
    await running(plugin, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await plugin.call("count") == 0
    with anyio.move_on_after(0.01) as scope:
        await plugin.call("hang")
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await plugin.call("hang")
    assert await plugin.call("count") == 0


async def test_calls_beyond_the_limit_wait_then_are_refused(load):
    """Two calls run, one waits, the next is refused at once and starts nothing; then all run that were admitted."""
    plugin = await load(CODE, limits="concurrency = 2\nqueue = 1")
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(3)]
    await until(lambda: (plugin.stats().active, plugin.stats().waiting) == (2, 1))
    with pytest.raises(PluginBusy, match="p: 2 calls run and 1 wait; nothing was started"):
        await plugin.call("add", a=1)
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    opening = asyncio.create_task(plugin.call("open"))
    calls[1].cancel()
    await opening
    assert await calls[2] == 1
    stats = plugin.stats()
    assert (stats.calls, stats.refused, stats.failed, stats.active, stats.waiting) == (5, 1, 2, 0, 0)


async def test_many_calls_at_once_do_not_mix(load):
    """Concurrent calls get their own results."""
    plugin = await load(CODE, limits="concurrency = 64\nqueue = 1000")
    assert await asyncio.gather(*(plugin.call("add", a=a, b=0) for a in range(300))) == list(range(300))
