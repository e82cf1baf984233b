"""The life of a plugin at every level: start, crash, restart, reload, stop, and what it says meanwhile."""

import asyncio
import logging

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed, PluginLoadError, PluginSetupError, PluginStateError
from nyx_stream.host import State
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import until

CODE = """
    import asyncio
    import side

    class Main(Plugin):
        async def setup(self):
            self.log.info("setup of %s %s", self.id, self.manifest.version)
            self.bomb = asyncio.Event()
            self.spawn(asyncio.Event().wait())
        async def teardown(self):
            self.log.info("teardown")
        async def explode(self):
            await self.bomb.wait()
            raise ValueError("in the background")
        @export
        async def arm(self): self.spawn(self.explode())
        @export
        async def fire(self): self.bomb.set()
        @export
        async def hang(self): await asyncio.Event().wait()
        @export
        async def value(self) -> int: return side.VALUE
        @export
        async def say(self, level: int, text: str):
            try: raise KeyError(text)
            except KeyError: self.log.log(level, "said %s", text, exc_info=True)
        @export
        async def variables(self) -> dict[str, str]: return dict(self.env)
    """


async def gone(handle, state=State.FAILED):
    """Waits for a state."""
    async with asyncio.timeout(20):
        await until(lambda: handle.state is state)


async def test_a_plugin_starts_works_and_stops(load, host, caplog):
    """setup, calls and teardown run in that order; afterwards there is no plugin."""
    caplog.set_level(logging.INFO, logger="nyx.plugin.p")
    plugin = await load(CODE, side="VALUE = 42")
    assert (plugin.state, plugin.status.version) == (State.RUNNING, "1.0")
    assert await plugin.call("value") == 42
    await host.unload("p")
    assert plugin.state is State.STOPPED
    said = [record.getMessage() for record in caplog.records if record.name == "nyx.plugin.p"]
    assert said == ["setup of p 1.0", "teardown"]


BROKEN = {
    "raise ValueError('at import')": (PluginLoadError, "main:Main does not import: ValueError: at import"),
    "import sys; sys.exit(3)": (PluginLoadError, "main:Main does not import: SystemExit: 3"),
    "x = (": (PluginLoadError, "SyntaxError: '(' was never closed"),
    "class Main: pass": (PluginLoadError, "main:Main is not a subclass of nyx_stream.Plugin"),
    "import nowhere": (PluginLoadError, "ModuleNotFoundError: No module named 'nowhere'"),
    "class Main(Plugin):\n    async def setup(self): 1/0": (PluginSetupError, "setup raised ZeroDivisionError"),
    "class Main(Plugin):\n    async def setup(self): raise SystemExit": (PluginSetupError, "setup raised SystemExit"),
    "class Main(Plugin):\n    @export\n    async def f(self, x: 'Nope'): pass": (PluginLoadError, "f: its annotations"),
}


@pytest.mark.parametrize("code", BROKEN)
async def test_a_plugin_that_cannot_start_says_why(load, host, code):
    """A clear error, a failed listing with the plugin's traceback, and nothing left that runs."""
    kind, text = BROKEN[code]
    with pytest.raises(kind) as caught:
        await load(code)
    assert text in str(caught.value)
    status = host.plugins["p"]
    assert status.state is State.FAILED
    assert text in status.error
    assert status.traceback.startswith("Traceback")
    assert text.rpartition(": ")[2] in status.traceback


async def test_a_setup_that_takes_too_long_is_given_up(load, host):
    """setup has a time limit, whatever it waits for."""
    code = "import asyncio\nclass Main(Plugin):\n    async def setup(self): await asyncio.Event().wait()"
    with pytest.raises(PluginSetupError, match=r"setup took longer than 1 s"):
        await load(code, limits='setup_timeout = "1s"')
    assert host.plugins["p"].state is State.FAILED


async def test_a_crash_in_the_background_fails_the_plugin(load):
    """Calls under way get PluginCrashed, later ones too, with the reason; nothing else is cancelled."""
    plugin = await load(CODE, side="VALUE = 1")
    other = await load(CODE, name="other", side="VALUE = 2")
    call = asyncio.create_task(plugin.call("hang"))
    await plugin.call("arm")
    await plugin.call("fire")
    with pytest.raises(PluginCrashed, match="p: it failed during the call"):
        await call
    await gone(plugin)
    with pytest.raises(PluginCrashed, match=r"p: it has failed: .*in the background"):
        await plugin.call("value")
    assert "in explode" in plugin.status.traceback
    assert await other.call("value") == 2


async def test_on_fail_restart_starts_it_again(load, monkeypatch):
    """A plugin that is to be restarted takes calls again after a crash."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    plugin = await load(CODE, on_fail="restart", side="VALUE = 1")
    for count in (1, 2):
        await plugin.call("arm")
        await plugin.call("fire")
        async with asyncio.timeout(20):
            await until(lambda count=count: plugin.stats().restarts == count and plugin.state is State.RUNNING)
        assert await plugin.call("value") == 1


async def test_on_fail_abort_ends_the_host(make, level, tmp_path):
    """A plugin that the host cannot do without takes the host's block down, with its error."""
    folder = make("p", CODE, side="VALUE = 1")

    async def run() -> None:
        async with PluginHost(data_dir=tmp_path / "own") as host:
            plugin = await host.load(folder, isolation=level, on_fail="abort")
            await plugin.call("arm")
            await plugin.call("fire")
            await asyncio.Event().wait()

    with pytest.raises(PluginCrashed, match=r"p: it has failed: .*in the background"):
        await run()


async def test_a_reload_takes_the_new_code(load, make):
    """After a reload the code is what the folder has now, and the handle goes on."""
    plugin = await load(CODE, side="VALUE = 1")
    make("p", CODE, side="VALUE = 2")
    await plugin.reload()
    assert await plugin.call("value") == 2


async def test_log_records_are_the_plugins_and_cannot_be_forged(load, caplog):
    """A record comes under the plugin's name, on one line but for its traceback, with its level."""
    caplog.set_level(logging.DEBUG, logger="nyx.plugin.p")
    plugin = await load(CODE, side="VALUE = 1")
    await plugin.call("say", level=logging.ERROR, text="a\nERROR root:forged \x1b[2J\u202e")
    async with asyncio.timeout(20):
        await until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    first, *trace = records[0].getMessage().splitlines()
    assert (records[0].name, first) == ("nyx.plugin.p", r"said a\u000aERROR root:forged \u001b[2J\u202e")
    assert trace[0].startswith("Traceback")
    assert "KeyError" in trace[-1]


async def test_the_environment_is_what_was_granted(load, monkeypatch):
    """Variables that are asked for, granted and set are there; a new policy takes them away again."""
    monkeypatch.setenv("NYX_TEST_ONE", "1")
    monkeypatch.setenv("NYX_TEST_TWO", "2")
    monkeypatch.delenv("NYX_TEST_NONE", raising=False)
    policy = SandboxPolicy().allow_env("NYX_TEST_ONE", "NYX_TEST_NONE")
    asks = 'env = ["NYX_TEST_ONE", "NYX_TEST_TWO", "NYX_TEST_NONE"]'
    plugin = await load(CODE, policy=policy, permissions=asks, side="VALUE = 1")
    assert await plugin.call("variables") == {"NYX_TEST_ONE": "1"}
    await plugin.update_policy(SandboxPolicy().allow_env("NYX_TEST_TWO"))
    assert await plugin.call("variables") == {"NYX_TEST_TWO": "2"}


async def test_unloading_ends_calls(load, host):
    """Calls under way get PluginStateError; calls after it too."""
    plugin = await load(CODE, side="VALUE = 1")
    calls = [asyncio.create_task(plugin.call("hang")) for _ in range(3)]
    await until(lambda: plugin.stats().active == 3)
    await host.unload("p")
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, PluginStateError)
        assert "p: it was stopped during the call" in str(result)
    with pytest.raises(PluginStateError):
        await plugin.call("value")


async def test_a_teardown_that_raises_is_logged_and_changes_nothing(load, host, caplog):
    """Unloading finishes whatever teardown does."""
    await load("class Main(Plugin):\n    async def teardown(self): raise ValueError('no teardown today')")
    await host.unload("p")
    assert "teardown raised ValueError: no teardown today" in caplog.text
    assert "p" not in host.plugins
