"""When a lease ends, every operation under way and every open file or connection ends at once, with `Revoked` and the
host's reason. The plugin's own task is not cancelled.
"""

import asyncio

import pytest

from nyx_stream.errors import Revoked
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Server
from tests.conformance.capabilities.server import answer
from tests.plugin_fixtures import until

CODE = """
    import asyncio
    from nyx_stream.errors import Revoked

    async def pieces():
        while True:
            yield bytes(1000)
            await asyncio.sleep(0.01)

    class Main(Plugin):
        async def before_the_head(self, http):
            await http.get(f"{self.url}/hang", timeout=None)

        async def in_the_body(self, http):
            await http.get(f"{self.url}/slow", timeout=None)

        async def while_streaming(self, http):
            async with http.stream("GET", f"{self.url}/slow", timeout=None) as reply:
                async for piece in reply.aiter_raw():
                    self.reached.set()

        async def while_streaming_what_is_there_already(self, http):
            async with http.stream("GET", f"{self.url}/too-long", timeout=None) as reply:
                pieces = reply.aiter_raw()
                await anext(pieces)
                self.reached.set()
                await self.go.wait()
                await anext(pieces)

        async def while_sending(self, http):
            await http.post(f"{self.url}/echo", content=pieces(), timeout=None)

        async def while_reading(self, files):
            async with files.open("f") as file:
                self.reached.set()
                await self.go.wait()
                await file.read()

        async def while_writing(self, files):
            async with files.open("g", "w") as file:
                await file.write("kept")
                self.reached.set()
                await self.go.wait()
                await file.write("lost")

        async def while_receiving(self, connect):
            stream = await connect("127.0.0.1", self.port)
            await stream.send(b"GET /hang HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            self.reached.set()
            await stream.receive()

        async def while_sending_bare(self, connect):
            stream = await connect("127.0.0.1", self.port)
            await stream.send(b"POST /echo HTTP/1.1\\r\\nContent-Length: 1000000000\\r\\n\\r\\n")
            self.reached.set()
            while True:
                await stream.send(bytes(1_000_000))

        async def setup(self):
            self.reached, self.go = asyncio.Event(), asyncio.Event()
            await self.files.write_text("f", "content")

        @export
        async def act(self, case: str, capability: str, narrow: bool, port: int) -> list[str]:
            self.port, self.url = port, f"http://127.0.0.1:{port}"
            held = getattr(self, capability)
            if narrow and capability == "http":
                held = held.narrow(f"{self.url}/**", ttl="1h").narrow(f"{self.url}/**")
            elif narrow:
                held = held.narrow("f", "g", mode="rw", ttl="1h").narrow("f", "g", mode="rw")
            try:
                await getattr(self, case)(held)
            except Revoked as error:
                return [error.capability, error.reason, str(asyncio.current_task().cancelling())]

        @export
        async def bare(self, case: str, capability: str, port: int) -> None:
            self.port, self.url = port, f"http://127.0.0.1:{port}"
            await getattr(self, case)(getattr(self, capability))

        @export
        async def until_reached(self) -> None:
            await self.reached.wait()

        @export
        async def go_on(self) -> None:
            self.go.set()

    """
PERMISSIONS = """
    write = ["$DATA"]
    connect = ["127.0.0.1"]
    """
POLICY = (
    SandboxPolicy.locked_down()
    .allow_path_prefix("$DATA")
    .allow_connect_host("127.0.0.1")
    .with_limits(call_timeout="60s", response_bytes="1GiB", request_bytes="1GiB")
)
HTTP = ("before_the_head", "in_the_body", "while_streaming", "while_streaming_what_is_there_already", "while_sending")
FILES = ("while_reading", "while_writing")
CONNECT = ("while_receiving", "while_sending_bare")
SEEN_BY_THE_SERVER = ("before_the_head", "in_the_body")
CASES = [
    *(pytest.param(case, "http", narrow) for case in HTTP for narrow in (False, True)),
    *(pytest.param(case, "files", narrow) for case in FILES for narrow in (False, True)),
    *(pytest.param(case, "connect", False) for case in CONNECT),
]


@pytest.fixture
async def server():
    """A server as in the cases of the capabilities."""
    async with Server(answer) as server:
        yield server


async def reached(plugin, server, case):
    """Waits until the case is where its lease is to end."""
    if case in SEEN_BY_THE_SERVER:
        await until(lambda: server.requests)
    elif case == "while_sending":
        await until(lambda: server.accepted)
    else:
        await plugin.call("until_reached")


@pytest.mark.parametrize(("case", "capability", "narrow"), CASES)
async def test_it_ends_at_once_with_the_reason(load, server, case, capability, narrow):
    """The plugin gets `Revoked`, from the capability or from a narrowed one, and its task is not cancelled."""
    plugin = await load(CODE, permissions=PERMISSIONS, policy=POLICY)
    task = asyncio.create_task(
        plugin.call("act", case=case, capability=capability, narrow=narrow, port=server.port),
    )
    await reached(plugin, server, case)
    await plugin.revoke(capability, reason="incident 42")
    await plugin.call("go_on")
    assert await asyncio.wait_for(task, 30) == [capability, "revoked: incident 42", "0"]


@pytest.mark.parametrize(("case", "capability"), [("in_the_body", "http"), ("while_receiving", "connect")])
async def test_the_caller_gets_the_error_too(load, server, case, capability):
    """If the plugin does not catch it, the call raises it, and the plugin goes on serving."""
    plugin = await load(CODE, permissions=PERMISSIONS, policy=POLICY)
    task = asyncio.create_task(plugin.call("bare", case=case, capability=capability, port=server.port))
    await reached(plugin, server, case)
    await plugin.revoke(capability, reason="incident 42")
    with pytest.raises(Revoked, match="incident 42"):
        await asyncio.wait_for(task, 30)
    await plugin.call("go_on")


async def test_the_end_of_the_time_has_the_same_effect(load, server):
    """A `ttl` that the host sets while a request is under way."""
    plugin = await load(CODE, permissions=PERMISSIONS, policy=POLICY)
    arguments = {"case": "while_streaming", "capability": "http", "narrow": True, "port": server.port}
    task = asyncio.create_task(plugin.call("act", **arguments))
    await plugin.call("until_reached")
    await plugin.lease("http", ttl="20ms")
    assert await asyncio.wait_for(task, 30) == ["http", "expired after 0.02s", "0"]


async def test_everything_at_once(load, server):
    """One revocation ends all capabilities of a plugin, and every operation under way."""
    plugin = await load(CODE, permissions=PERMISSIONS, policy=POLICY)
    cases = [("before_the_head", "http"), ("while_reading", "files"), ("while_receiving", "connect")]
    tasks = [
        asyncio.create_task(plugin.call("act", case=case, capability=capability, narrow=False, port=server.port))
        for case, capability in cases
    ]
    await until(lambda: len(server.requests) == 2)
    await plugin.call("until_reached")
    await plugin.revoke(reason="incident 42")
    await plugin.call("go_on")
    told = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert told == [[capability, "revoked: incident 42", "0"] for _, capability in cases]


async def test_what_was_written_is_kept(load, server, tmp_path):
    """A file whose lease ends is flushed, as one that is closed."""
    plugin = await load(CODE, permissions=PERMISSIONS, policy=POLICY)
    arguments = {"case": "while_writing", "capability": "files", "narrow": True, "port": server.port}
    task = asyncio.create_task(plugin.call("act", **arguments))
    await plugin.call("until_reached")
    await plugin.revoke("files", reason="incident 42")
    await plugin.call("go_on")
    await asyncio.wait_for(task, 30)
    await until(lambda: (tmp_path / "data" / "p" / "g").read_text() == "kept")
