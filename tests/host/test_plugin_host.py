"""The host inside a larger program: beside other hosts, in task groups, and in applications."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from fastapi import FastAPI

from nyx_stream import PluginHost
from nyx_stream.errors import AuditError, PluginStateError
from nyx_stream.testing import run_plugin
from tests.plugin_fixtures import instance_of, until

CODE = """
    import asyncio
    class Main(Plugin):
        async def setup(self): self.spawn(asyncio.Event().wait())
        @export
        async def ping(self) -> str: return "pong"
        @export
        async def hang(self): await asyncio.Event().wait()
        @export
        async def shout(self, text: str):
            self.log.warning("said %s", text)
    """


async def test_hosts_side_by_side_share_nothing(make, tmp_path):
    """The same plugin in two hosts is two plugins; closing one host leaves the other alone."""
    folder = make("p", CODE)
    async with PluginHost(data_dir=tmp_path / "a") as one:
        async with PluginHost(data_dir=tmp_path / "b") as two:
            first, second = await one.load(folder), await two.load(folder)
            assert first is not second
        with pytest.raises(PluginStateError):
            await second.call("ping")
        assert await first.call("ping") == "pong"


async def test_closing_the_host_leaves_nothing(make, tmp_path):
    """At the end of the block every plugin is stopped, running calls are ended, and no task or module is left."""
    before = asyncio.all_tasks(), set(sys.modules)
    async with PluginHost(data_dir=tmp_path) as host:
        for name in ("p", "q"):
            await host.load(make(name, CODE))
        call = asyncio.create_task(host["p"].call("hang"))
        await asyncio.sleep(0)
    with pytest.raises(PluginStateError):
        await call
    assert asyncio.all_tasks() == before[0]
    assert not [name for name in set(sys.modules) - before[1] if name.startswith("_nyx")]
    with pytest.raises(PluginStateError, match="the host is not entered, or is closed"):
        await host.load(make("p", CODE))


async def test_a_host_inside_a_cancelled_scope_still_closes_its_plugins(make, tmp_path):
    """In a task group that is cancelled, asyncio's or anyio's, plugins are stopped before the group ends."""
    before = asyncio.all_tasks()
    async with anyio.create_task_group() as group, PluginHost(data_dir=tmp_path) as host:
        handle = await host.load(make("p", CODE))
        group.cancel_scope.cancel()
        await handle.call("hang")
    assert handle.state == "stopped"
    hosts = []

    async def guest():
        async with PluginHost(data_dir=tmp_path) as host:
            hosts.append(await host.load(make("p", CODE)))
            await hosts[0].call("hang")

    async def group_that_fails():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(guest())
            await until(lambda: hosts and hosts[0].stats().active)
            raise ValueError("the group ends")

    with pytest.raises(ExceptionGroup) as caught:
        await group_that_fails()
    assert hosts[0].state == "stopped"
    assert caught.group_contains(ValueError)
    assert asyncio.all_tasks() == before


async def test_a_host_that_is_cancelled_while_it_closes_closes_first(make, tmp_path):
    """Cancelling a host during its shutdown doesn't cut it short; the cancellation is raised afterwards."""
    before = asyncio.all_tasks()
    code = """
    import asyncio
    class Main(Plugin):
        async def setup(self):
            self.late = asyncio.Event()
        async def teardown(self): await self.late.wait()
    """
    plugins = []

    async def application():
        async with PluginHost(data_dir=tmp_path) as host:
            plugins.append(await host.load(make("p", code)))

    task = asyncio.create_task(application())
    await until(lambda: plugins and plugins[0].state == "stopping")
    instance = instance_of(plugins[0])
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    instance.late.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plugins[0].state == "stopped"
    assert asyncio.all_tasks() == before


async def test_a_load_that_overlaps_the_end_of_the_host_leaves_nothing(make, tmp_path):
    """A load that runs while the host closes raises, and its plugin doesn't run."""
    before = asyncio.all_tasks()
    async with PluginHost(data_dir=tmp_path) as host:
        loading = asyncio.create_task(host.load(make("p", CODE, permissions='write = ["$DATA"]')))
        await asyncio.sleep(0)
    with pytest.raises(PluginStateError):
        await loading
    assert asyncio.all_tasks() == before


async def test_a_host_is_the_lifespan_of_an_application(make, tmp_path):
    """A FastAPI application holds a host for its lifetime, and its routes call plugins."""
    handles = []

    @asynccontextmanager
    async def lifespan(app):
        async with PluginHost(data_dir=tmp_path) as host:
            app.state.plugin = await host.load(make("p", CODE))
            handles.append(app.state.plugin)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/ping")
    async def ping():
        return await app.state.plugin.call("ping")

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
    async with app.router.lifespan_context(app), client:
        answers = await asyncio.gather(*(client.get("/ping") for _ in range(5)))
        assert {answer.json() for answer in answers} == {"pong"}
    assert handles[0].state == "stopped"


async def test_an_audit_log_that_cannot_be_opened_stops_the_host(tmp_path):
    """A host whose audit log can't be opened doesn't start."""
    with pytest.raises(AuditError, match=r"cannot be opened: .*Is a directory"):
        async with PluginHost(audit=tmp_path):
            pytest.fail("the host was entered")


FULL = """
import asyncio, resource, signal, sys
from nyx_stream import PluginHost

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
    async with PluginHost(audit=sys.argv[1], data_dir=sys.argv[2]) as host:
        for _ in range(20):
            await host.load(sys.argv[3])
            await host.unload("p")
        print(await (await host.load(sys.argv[3])).call("ping"))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the full disk is made by RLIMIT_FSIZE")
def test_a_full_disk_under_the_audit_log_is_an_error_at_the_end(make, tmp_path):
    """Plugins continue, the log has complete lines only, and closing the host raises the count of lost events."""
    log = tmp_path / "audit.jsonl"
    arguments = [str(log), str(tmp_path / "data"), str(make("p", CODE))]
    done = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "pong\n"
    assert "AuditError: audit log" in done.stderr
    assert "events were lost: " in done.stderr
    assert log.read_bytes().endswith(b"}\n")


async def test_a_host_is_entered_once(tmp_path):
    """Entering a host that is already entered raises."""
    async with PluginHost(data_dir=tmp_path) as host:
        with pytest.raises(RuntimeError, match="in use already"):
            await host.__aenter__()
    async with host:
        assert dict(host.plugins) == {}


async def test_a_plugin_cannot_forge_log_lines(host, make, caplog):
    """A plugin's message is escaped to one line of the host's log, under the plugin's name."""
    plugin = await host.load(make("p", CODE))
    await plugin.call("shout", text="a\nERROR root:forged \x1b[2J\u202e")
    (record,) = [record for record in caplog.records if record.name == "nyx.plugin.p"]
    assert record.getMessage() == r"said a\u000aERROR root:forged \u001b[2J\u202e"
    assert record.funcName == "shout"


async def test_run_plugin_shows_an_author_what_a_plugin_was_denied(make):
    """`run_plugin` runs a plugin under the real guard, by default with what its manifest requests."""
    folder = make(
        "p",
        """
        class Main(Plugin):
            @export
            async def save(self, name: str) -> None: await self.files.write_text(name, "x")
        """,
        permissions='write = ["$DATA"]',
    )
    async with run_plugin(folder) as plugin:
        await plugin.call("save", name="a")
        assert os.listdir(plugin.data) == ["a"]
        assert plugin.denied == []
        with pytest.raises(PermissionError):
            await plugin.call("save", name="/etc/nyx")
        assert [event.target for event in plugin.denied] == ["/etc/nyx"]
    with pytest.raises(FileNotFoundError):
        os.listdir(plugin.data)


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import nyx_stream", ["asyncio", "pydantic", "httpx", "nyx_stream.host"]),
        ("from nyx_stream import Plugin, export", ["pydantic", "httpx", "nyx_stream.host", "nyx_stream.guard"]),
        ("from nyx_stream import PluginHost", ["httpx", "httpcore2", "typer"]),
    ],
)
def test_importing_costs_only_what_is_used(statement, without):
    """A plugin's module does not import the host, and a host without HTTP does not import an HTTP client."""
    code = f"import sys\n{statement}\nprint([name for name in {without!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
