"""What happens to operations in flight when their approval ends, at every level. A policy update does the same."""

import asyncio
import time

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import FilesystemDenied, NetworkDenied, Revoked
from nyx_stream.host import Answer
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Server
from tests.plugin_fixtures import record_of, until

CODE = """
    import asyncio

    class Main(Plugin):
        async def until(self, name):
            while not await self.files.exists(name):
                await asyncio.sleep(0.005)
        @export
        async def ask(self, kind: str, target: str) -> bool: return bool(await self.request(kind, target))
        @export
        async def fetch(self, url: str) -> str:
            async with self.http.stream("GET", url, timeout=None) as reply:
                pieces = reply.aiter_text()
                text = await anext(pieces)
                await self.files.write_text("signals/begun", "")
                async for piece in pieces:
                    text += piece
            return text
        @export
        async def append(self) -> None:
            async with self.files.open("notes/a", "w") as file:
                await file.write("one ")
                await self.files.write_text("signals/begun", "")
                await self.until("signals/go")
                await file.write("two")
        @export
        async def hold(self, host: str, port: int) -> bytes:
            stream = await self.connect(host, port)
            await self.files.write_text("signals/begun", "")
            return await stream.receive()
    """


@pytest.fixture
async def host(tmp_path, events):
    async def approver(_question):
        return Answer.until("10m")

    async with PluginHost(audit=events.append, data_dir=tmp_path / "data", approver=approver) as host:
        yield host


@pytest.fixture
def gate():
    return asyncio.Event()


@pytest.fixture
async def server(gate):
    """Sends half a response, and the rest when the gate is open."""

    async def halves(_asked):
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf"
        await gate.wait()
        yield b"done"

    async with Server(halves) as server:
        yield server
        gate.set()


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "p"
    for name in ("notes", "signals"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture
async def plugin(host, make, server, level, data):
    permissions = f"""
        connect = [{{rule = "127.0.0.1", optional = true}}]
        request = [{{rule = "GET {server.url}/**", optional = true}}]
        write = ["$DATA/signals", {{rule = "$DATA/notes", optional = true}}]
        """
    policy = SandboxPolicy.locked_down().allow_path_prefix("$DATA/signals")
    return await host.load(make("p", CODE, permissions=permissions), policy=policy, isolation=level)


@pytest.fixture(params=["its time is over", "it is taken back"])
def end(request, host, plugin, events, monkeypatch):
    """Ends all approvals of the plugin."""

    async def end():
        if request.param == "it is taken back":
            await plugin.forget()
        else:
            later = time.time() + 3600
            monkeypatch.setattr(time, "time", lambda: later)
            host._operations.approvals.schedule_expiry(record_of(plugin))  # its timer was set by the clock as it was
            await until(lambda: any(event.action == "expire" for event in events))
        assert plugin.approvals == ()

    return end


async def begun(data):
    while not (data / "signals" / "begun").exists():  # noqa: ASYNC110  # another process says so
        await asyncio.sleep(0.005)


async def test_a_response_under_way_goes_on(plugin, server, gate, end, data):
    """The request was allowed when it was approved. The next one is denied."""
    assert await plugin.call("ask", kind="request", target=f"GET {server.url}/**")
    fetching = asyncio.create_task(plugin.call("fetch", url=server.url))
    await begun(data)
    await end()
    gate.set()
    assert await fetching == "halfdone"
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch", url=server.url)


async def test_a_file_that_is_open_goes_on(plugin, end, data):
    """Opening it was one operation. The next one is denied."""
    assert await plugin.call("ask", kind="write", target="$DATA/notes")
    appending = asyncio.create_task(plugin.call("append"))
    await begun(data)
    await end()
    (data / "signals" / "go").touch()
    await appending
    assert (data / "notes" / "a").read_text() == "one two"
    with pytest.raises(FilesystemDenied):
        await plugin.call("append")


async def test_a_connection_ends(plugin, server, end, data):
    """A connection could otherwise be used without limit."""
    assert await plugin.call("ask", kind="connect", target=f"127.0.0.1:{server.port}")
    holding = asyncio.create_task(plugin.call("hold", host="127.0.0.1", port=server.port))
    await begun(data)
    await end()
    with pytest.raises(Revoked):
        await holding


@pytest.mark.parametrize("capability", ["http", "files"])
async def test_what_goes_on_can_be_ended_by_its_lease(plugin, server, data, end, capability):
    """Revoking the lease ends what the end of the approval leaves open."""
    if capability == "http":
        assert await plugin.call("ask", kind="request", target=f"GET {server.url}/**")
        under_way = asyncio.create_task(plugin.call("fetch", url=server.url))
    else:
        assert await plugin.call("ask", kind="write", target="$DATA/notes")
        under_way = asyncio.create_task(plugin.call("append"))
    await begun(data)
    await end()
    await plugin.revoke(capability, reason="its approval is over")
    with pytest.raises(Revoked):
        await under_way
