"""Loading, loading again and unloading; a plugin that doesn't load doesn't affect others."""

import asyncio

import pytest

from nyx_stream.errors import (
    ManifestError,
    PluginCrashed,
    PluginLoadError,
    PluginNotFound,
    PluginSetupError,
    PluginStateError,
    PolicyError,
)
from nyx_stream.host import State
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import until

GOOD = """
    class Main(Plugin):
        @export
        async def ping(self) -> str: return "pong"
    """


async def test_loading_twice_returns_the_same_handle(host, make):
    """Every spelling of the same folder gives the same plugin."""
    folder = make("p", GOOD)
    handle = await host.load(folder)
    assert await host.load(str(folder)) is handle
    assert await host.load(folder / ".." / "p") is handle
    assert list(host.plugins) == ["p"]


async def test_concurrent_loads_of_one_plugin_start_it_once(host, make, tmp_path):
    """Loads that overlap all get the one plugin, set up once."""
    folder = make(
        "p",
        """
        class Main(Plugin):
            async def setup(self):
                (await self.count()) if False else None
                import asyncio
                await asyncio.sleep(0)
                self.log.warning("set up once")
            @export
            async def count(self) -> int: return 1
        """,
    )
    handles = await asyncio.gather(*(host.load(folder) for _ in range(5)))
    assert len(set(map(id, handles))) == 1


async def test_the_same_id_from_another_folder_is_an_error(host, make):
    """Two plugins can't share an id. The first one stays loaded."""
    handle = await host.load(make("p", GOOD))
    with pytest.raises(PluginStateError, match=r"p: is loaded already, from .*plugins/p"):
        await host.load(make("other", GOOD, plugin_id="p"))
    assert await handle.call("ping") == "pong"


async def test_another_policy_for_a_loaded_plugin_is_an_error(host, make):
    """A second load with another policy raises and doesn't change the policy."""
    folder = make("p", GOOD)
    await host.load(folder)
    with pytest.raises(PluginStateError, match="under another policy: use update_policy"):
        await host.load(folder, policy=SandboxPolicy.locked_down().allow_env("TZ"))


async def test_unload_then_load(host, make):
    """An unloaded plugin can be loaded again. The old handle raises, the new one works."""
    folder = make("p", GOOD)
    old = await host.load(folder)
    await host.unload("p")
    assert dict(host.plugins) == {}
    with pytest.raises(PluginStateError, match="p: it is stopped and takes no calls"):
        await old.call("ping")
    assert await (await host.load(folder)).call("ping") == "pong"
    with pytest.raises(PluginNotFound, match="nobody: is not loaded"):
        await host.unload("nobody")


async def test_reload_takes_new_code_and_manifest(host, make):
    """A reload reads everything again, and the handle stays valid."""
    handle = await host.load(make("p", GOOD))
    make("p", GOOD.replace("pong", "changed") + "    @export\n        async def more(self) -> int: return 2\n")
    await handle.reload()
    assert await handle.call("ping") == "changed"
    assert await handle.call("more") == 2
    assert host["p"] is handle


async def test_a_failed_plugin_is_reloaded_in_place(host, make):
    """A reload of a failed plugin starts it again, once its code is repaired."""
    with pytest.raises(PluginLoadError):
        await host.load(make("p", "raise RuntimeError('broken')"))
    handle = host["p"]
    make("p", "raise RuntimeError('still broken')")
    with pytest.raises(PluginLoadError, match="still broken"):
        await handle.reload()
    assert handle.state is State.FAILED
    assert "still broken" in handle.status.error
    make("p", GOOD)
    await handle.reload()
    assert await handle.call("ping") == "pong"


BROKEN = {
    "raise ValueError('at import')": (PluginLoadError, "main:Main does not import: ValueError: at import"),
    "import sys; sys.exit(3)": (PluginLoadError, "main:Main does not import: SystemExit: 3"),
    "x = (": (PluginLoadError, "main:Main does not import: SyntaxError"),
    "Other = 1": (PluginLoadError, "main:Main does not import: AttributeError"),
    "class Main: pass": (PluginLoadError, "main:Main is not a subclass of nyx_stream.Plugin"),
    "Main = 3": (PluginLoadError, "main:Main is not a subclass of nyx_stream.Plugin"),
    "class Main(Plugin):\n    def __init__(self, x): pass": (
        PluginLoadError,
        "main:Main cannot be instantiated: TypeError",
    ),
    "class Main(Plugin):\n    def setup(self): pass": (PluginLoadError, "Main.setup must be an async method"),
    "class Main(Plugin):\n    @export\n    def f(self): pass": (PluginLoadError, "only async methods"),
    "class Main(Plugin):\n    @export\n    async def f(self, x: Nope): pass": (
        PluginLoadError,
        "name 'Nope' is not defined",
    ),
    "class Main(Plugin):\n    async def setup(self): 1/0": (PluginSetupError, "setup raised ZeroDivisionError"),
    "class Main(Plugin):\n    async def setup(self): raise SystemExit": (PluginSetupError, "setup raised SystemExit"),
    "class Main(Plugin):\n    async def setup(self):\n        import asyncio\n        raise asyncio.CancelledError": (
        PluginSetupError,
        "setup raised CancelledError",
    ),
}


@pytest.mark.parametrize("code", BROKEN)
async def test_a_plugin_that_cannot_start_is_listed_as_failed_with_its_traceback(host, make, code):
    """The error is clear, the status has the traceback, and other plugins continue."""
    kind, text = BROKEN[code]
    good = await host.load(make("good", GOOD))
    with pytest.raises(kind) as caught:
        await host.load(make("bad", code))
    assert text in str(caught.value)
    status = host.plugins["bad"]
    assert status.state is State.FAILED
    assert text in status.error
    assert status.traceback.startswith("Traceback")
    assert text.rpartition(": ")[2] in status.traceback
    with pytest.raises(PluginCrashed, match="bad: it has failed"):
        await host["bad"].call("ping")
    assert await good.call("ping") == "pong"


async def test_a_failed_plugin_can_be_loaded_again(host, make):
    """Once its code is repaired, the same load works."""
    with pytest.raises(PluginLoadError):
        await host.load(make("p", "raise RuntimeError"))
    handle = await host.load(make("p", GOOD))
    assert await handle.call("ping") == "pong"
    assert host.plugins["p"].error is None


async def test_a_setup_that_takes_too_long_is_cancelled(host, make):
    """A setup that exceeds its timeout is cancelled, with the tasks that it started."""
    folder = make(
        "p",
        """
        import asyncio
        class Main(Plugin):
            async def setup(self):
                try: await asyncio.Event().wait()
                finally: self.log.warning("ended")
        """,
        limits='setup_timeout = "50ms"',
    )
    with pytest.raises(PluginSetupError, match=r"p: setup took longer than 0\.05 s"):
        await host.load(folder)
    assert host.plugins["p"].state is State.FAILED


async def test_a_setup_that_swallows_its_cancellation_is_not_left_running(host, make):
    """It is cancelled again until it ends: a failed load leaves no task behind."""
    folder = make(
        "p",
        """
        import asyncio
        class Main(Plugin):
            async def setup(self):
                for _ in range(2):
                    try: await asyncio.Event().wait()
                    except asyncio.CancelledError: pass
        """,
        limits='setup_timeout = "50ms"',
    )
    before = asyncio.all_tasks()
    with pytest.raises(PluginSetupError, match="setup took longer"):
        await host.load(folder)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("leaves", ["SystemExit", "asyncio.CancelledError", "RuntimeError"])
async def test_an_exception_whose_text_raises_is_still_the_plugins(host, make, leaves):
    """An exception whose `__str__` raises ends neither the host nor the caller's task."""
    folder = make(
        "p",
        f"""
        import asyncio
        class Odd(Exception):
            def __str__(self): raise {leaves}
        class Main(Plugin):
            async def setup(self): raise Odd
        """,
    )
    with pytest.raises(PluginSetupError, match="setup raised Odd: its message cannot be read"):
        await host.load(folder)
    assert "Odd" in host.plugins["p"].traceback


async def test_a_load_that_is_cancelled_leaves_nothing_running(host, make):
    """Cancelling a load stops the plugin that was starting."""
    folder = make(
        "p",
        """
        import asyncio
        class Main(Plugin):
            async def setup(self):
                self.spawn(asyncio.Event().wait())
                await asyncio.Event().wait()
        """,
    )
    before = asyncio.all_tasks()
    task = asyncio.create_task(host.load(folder))
    await until(lambda: "p" in host.plugins and host.plugins["p"].state is State.STARTING)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    assert host.plugins["p"].state is State.STOPPED


async def test_bad_files_are_errors_with_their_place(host, make, tmp_path):
    """A wrong or missing manifest or policy is reported with file and line, and the plugin is listed as failed."""
    folder = make("p", GOOD)
    (tmp_path / "policy.toml").write_text('[allow]\nconnect = ["*.com"]\n')
    with pytest.raises(PolicyError, match=r"policy\.toml:2"):
        await host.load(folder, policy=tmp_path / "policy.toml")
    (folder / "plugin.toml").write_text('id = "p"\nversion = "1"\nentry = "main:Main"\ncolour = 1\n')
    with pytest.raises(ManifestError, match=r"plugin\.toml:4"):
        await host.load(folder)
    assert host.plugins["p"].state is State.FAILED
    (folder / "plugin.toml").unlink()
    with pytest.raises(ManifestError, match=r"plugin\.toml: cannot be read: No such file"):
        await host.load(folder)
    for missing in (tmp_path / "nowhere", "no-such-plugin", ""):
        with pytest.raises(PluginNotFound):
            await host.load(missing)


@pytest.mark.parametrize("level", ["container", "none"])
async def test_levels_that_are_not_there_are_a_clear_error(host, make, level):
    """An isolation level that isn't available is an error: there is no fallback to a weaker one."""
    with pytest.raises(
        PluginLoadError, match=f"isolation level '{level}' is not available; available are: inline, process"
    ):
        await host.load(make("p", GOOD), isolation=level)
