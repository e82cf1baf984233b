"""Crashes: an exception in a plugin's background task fails that plugin and nothing else."""

import asyncio

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed
from nyx_stream.host import State
from tests.plugin_fixtures import instance_of, until

CODE = """
    import asyncio

    class Main(Plugin):
        async def setup(self):
            self.bomb = asyncio.Event()
            self.quiet = self.spawn(asyncio.Event().wait())

        async def explode(self, kind):
            await self.bomb.wait()
            raise kind("in the background")

        @export
        async def arm(self, name: str = "ValueError"):
            import builtins
            self.spawn(self.explode(getattr(builtins, name)))

        @export
        async def fire(self): self.bomb.set()

        @export
        async def hang(self): await asyncio.Event().wait()

        @export
        async def items(self):
            while True: yield 1

        @export
        async def ping(self) -> str: return "pong"

        @export
        async def stray(self):
            asyncio.create_task(self.forever())

        async def forever(self): await asyncio.Event().wait()
    """


async def gone(handle, state=State.FAILED):
    await until(lambda: handle.state is state)


@pytest.mark.parametrize("kind", ["ValueError", "SystemExit", "GeneratorExit"])
async def test_a_crash_in_the_background_fails_the_plugin_and_cancels_nothing_of_the_hosts(host, make, kind):
    """Calls get PluginCrashed with the cause; the host's tasks and other plugins continue."""
    bad = await host.load(make("bad", CODE))
    good = await host.load(make("good", CODE))
    own = asyncio.create_task(asyncio.Event().wait())
    call = asyncio.create_task(bad.call("hang"))
    items = bad.stream("items")
    await anext(items)
    await bad.call("arm", name=kind)
    await bad.call("fire")
    with pytest.raises(PluginCrashed, match="bad: it failed during the call") as caught:
        await call
    cause = caught.value.__cause__
    assert kind in f"{type(cause).__name__} {cause}"
    with pytest.raises(PluginCrashed, match=r"bad: it has failed: .*in the background"):
        await bad.call("ping")
    with pytest.raises(PluginCrashed):
        await anext(items)
    assert await good.call("ping") == "pong"
    assert not own.done()
    own.cancel()
    status = host.plugins["bad"]
    assert status.state is State.FAILED
    assert "in explode" in status.traceback


async def test_a_cancelled_background_task_is_no_crash(host, make):
    """A plugin may cancel its own tasks."""
    handle = await host.load(make("p", CODE))
    instance_of(handle).quiet.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert await handle.call("ping") == "pong"


async def test_unloading_cancels_the_plugins_tasks(host, make):
    """Spawned tasks end with the plugin, and so do those that it started past `spawn`."""
    before = asyncio.all_tasks()
    handle = await host.load(make("p", CODE))
    await handle.call("stray")
    await host.unload("p")
    assert asyncio.all_tasks() == before


async def test_a_task_that_fails_while_the_plugin_stops_changes_nothing(host, make):
    """A task that raises while it is cancelled doesn't turn an unload into a failure."""
    code = """
    import asyncio
    class Main(Plugin):
        async def setup(self): self.spawn(self.work())
        async def work(self):
            try: await asyncio.Event().wait()
            finally: raise ValueError("late")
    """
    handle = await host.load(make("p", code))
    await asyncio.sleep(0)
    await host.unload("p")
    assert handle.state is State.STOPPED


async def test_a_task_cannot_be_spawned_while_stopping(host, make, caplog):
    """An exception in teardown is logged, and unloading finishes."""
    code = """
    import asyncio
    class Main(Plugin):
        async def teardown(self): raise ValueError("no teardown today")
    """
    handle = await host.load(make("p", code))
    await host.unload("p")
    assert handle.state is State.STOPPED
    assert "teardown raised ValueError: no teardown today" in caplog.text


async def test_on_fail_restart_starts_it_again(tmp_path, make, monkeypatch):
    """After a crash, the plugin takes calls again. The restart is attributed to the host."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    async with PluginHost(data_dir=tmp_path) as host:
        handle = await host.load(make("p", CODE, permissions='write = ["$DATA"]'), on_fail="restart")
        for count in (1, 2):
            (tmp_path / "p").rmdir()  # made again by the restart: as the plugin's act, that would be refused
            await handle.call("arm")
            await handle.call("fire")
            await gone(handle)
            await gone(handle, State.RUNNING)
            assert await handle.call("ping") == "pong"
            assert handle.stats().restarts == count


async def test_on_fail_abort_ends_the_host_with_the_error(tmp_path, make):
    """A crash of a plugin with on_fail="abort" ends the host's `async with` block with the plugin's error."""

    async def application():
        async with PluginHost(data_dir=tmp_path) as host:
            handle = await host.load(make("p", CODE), on_fail="abort")
            await handle.call("arm")
            await handle.call("fire")
            await asyncio.Event().wait()

    with pytest.raises(PluginCrashed, match=r"p: it has failed: .*in the background"):
        await application()
    assert asyncio.current_task().cancelling() == 0


async def test_restarts_are_bounded(tmp_path, make, monkeypatch, caplog):
    """A plugin whose setup fails at every restart stays failed after a fixed number of attempts."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    async with PluginHost(data_dir=tmp_path) as host:
        handle = await host.load(make("p", CODE), on_fail="restart")
        await handle.call("arm")
        make("p", CODE + "    raise RuntimeError('gone bad')\n")
        await handle.call("fire")
        await until(lambda: "stays failed after 5 restarts" in caplog.text)
        assert handle.state is State.FAILED
        assert handle.stats().restarts == 5
