"""Revocation and policy updates take effect in a running worker, also on what is open."""

import asyncio
import os

import pytest

from nyx_stream.errors import NetworkDenied, Revoked
from tests.capabilities.http.loopback import until
from tests.isolation.broker.conftest import descriptors, policy

GET = "return (await self.http.get('http://granted.example/hello')).text"


@pytest.fixture
def begin(load):
    """Loads a plugin, starts code in it, and returns both once the plugin says that it is there."""

    async def begin(code, reached):
        plugin = await load()
        task = asyncio.ensure_future(plugin.call("run", code=code))
        await until(reached)
        return plugin, task

    return begin


@pytest.mark.parametrize("path", ["hang", "slow"])
async def test_a_request_under_way_ends(begin, server, path):
    """Before its head and in its body: the plugin gets `Revoked`, which is an httpx error too."""
    code = f"""
try:
    await self.http.get("http://granted.example/{path}")
except Revoked as error:
    return [isinstance(error, httpx.RequestError), error.reason, error.capability]
"""
    plugin, task = await begin(code, lambda: server.requests)
    await plugin.revoke("http", reason="incident 42")
    assert await task == [True, "revoked: incident 42", "http"]
    with pytest.raises(Revoked, match="incident 42"):
        await plugin.call("run", code=GET)


async def test_a_streamed_upload_ends(begin, server):
    """A body that is still being sent is not asked for any more."""
    code = """
async def pieces():
    while True:
        yield bytes(1000)
        await asyncio.sleep(0.01)
try:
    await self.http.post("http://granted.example/echo", content=pieces())
except Revoked as error:
    return error.reason
"""
    accepted = server.accepted
    plugin, task = await begin(code, lambda: server.accepted > accepted)
    await plugin.revoke("http", reason="enough")
    assert await task == "revoked: enough"


@pytest.mark.parametrize("ended_by", ["revocation", "time"])
async def test_a_response_that_nobody_reads_ends(load, server, ended_by):
    """With the request's time or its lease: the host holds no connection for it, and the plugin gets what was sent and
    then the error."""
    plugin = await load(given=policy().with_limits(request_timeout="1s" if ended_by == "time" else "60s"))
    before = server.connected
    code = """
request = self.http.build_request("GET", "http://granted.example/too-long")
self.reply = await self.http.send(request, stream=True)
self.pieces = self.reply.aiter_raw()
return len(await anext(self.pieces)) > 0
"""
    assert await plugin.call("run", code=code)
    if ended_by == "revocation":
        await plugin.revoke("http", reason="enough")
    await until(lambda: server.connected <= before)
    code = """
wrong = 0
try:
    async for piece in self.pieces:
        wrong += any(piece)
except httpx.RequestError as error:
    return [type(error).__name__, wrong]
"""
    assert await plugin.call("run", code=code) == ["HttpRevoked" if ended_by == "revocation" else "ReadTimeout", 0]


@pytest.mark.parametrize("act", ["receive()", "send(bytes(50_000_000))"])
async def test_a_connection_ends(begin, server, act):
    """Whoever waits on it is woken with `Revoked`, later use gets it too, and the peer sees the end."""
    code = f"""
stream = await self.connect("granted.example", 80)
await stream.send(b"GET /hang HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
told = []
for _ in range(2):
    try:
        await stream.{act}
    except Revoked as error:
        told.append(error.reason)
await stream.aclose()
return told
"""
    plugin, task = await begin(code, lambda: server.requests)
    await plugin.revoke("connect", reason="enough")
    assert await task == ["revoked: enough"] * 2
    with pytest.raises(Revoked):
        await plugin.call("run", code="await self.connect('granted.example', 80)")


async def test_a_connection_is_over_even_for_a_plugin_that_keeps_the_socket(load, server):
    """The host ends the connection itself, and waits for nothing, though the socket was made a blocking one."""
    plugin = await load()
    code = """
told = await self._context.rpc.to("connect").ask("open", host="granted.example", port=80)
self.sock = socket.socket(fileno=told.descriptors[0])
self.sock.setblocking(True)
self.sock.sendall(b"GET /big HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
return len(self.sock.recv(1000))
"""
    assert await plugin.call("run", code=code) == 1000
    await plugin.revoke("connect", reason="enough")
    code = """
got = b""
try:
    while piece := self.sock.recv(65536):
        got += piece
except ConnectionError:
    pass
try:
    self.sock.send(b"x")
except OSError as error:
    return [len(got) < 10_000_000, type(error).__name__]
"""
    assert await plugin.call("run", code=code) == [True, "BrokenPipeError"]


async def test_a_kept_descriptor_stays_and_nothing_new_is_opened(load):
    """Open files end; a descriptor cannot be taken back, and that much, and no more, outlives the revocation."""
    plugin = await load()
    code = """
self.file = await self.files.open("f", "w+")
await self.file.write("kept")
await self.file.flush()
self.kept = os.dup(self.file.fileno())
await self.file.write(" and flushed")
"""
    await plugin.call("run", code=code)
    await plugin.revoke("files", reason="enough")
    code = """
told = []
acts = [lambda: self.file.read(), lambda: self.file.flush(), lambda: self.files.open("f")]
for act in (*acts, lambda: self.files.read_text("f"), lambda: self.files.stat("f")):
    try:
        await act()
    except Revoked as error:
        told.append(error.reason)
await self.file.close()
while (content := os.pread(self.kept, 100, 0)) != b"kept and flushed":
    await asyncio.sleep(0.01)
os.pwrite(self.kept, b"K", 0)
return [told, os.pread(self.kept, 100, 0).decode()]
"""
    assert await plugin.call("run", code=code) == [["revoked: enough"] * 5, "Kept and flushed"]


async def test_a_hard_revocation_takes_the_descriptor_with_the_process(load):
    """The process ends, and with it the descriptors that can't be taken back; the next process has none."""
    plugin = await load()
    code = "self.file = await self.files.open('f', 'w')\nself.kept = os.dup(self.file.fileno())\nreturn os.getpid()"
    process = await plugin.call("run", code=code)
    await plugin.revoke("files", reason="enough", hard=True)
    code = """
told = [os.getpid(), hasattr(self, "kept")]
try:
    await self.files.open("f")
except Revoked as error:
    told.append(error.reason)
return told
"""
    now, kept, reason = await plugin.call("run", code=code)
    assert (now != process, kept, reason) == (True, False, "revoked: enough")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_a_policy_that_grants_less_ends_what_it_does_not_grant(load, server, events):
    """The connection that is not granted any more is over, recorded as such; the other one goes on."""
    plugin = await load()
    await plugin.call(
        "run",
        code="self.a = await self.connect('granted.example', 80)\nself.b = await self.connect('other.example', 80)",
    )
    await plugin.update_policy(policy().deny_connect_host("granted.example"))
    code = """
await self.b.send(b"GET /hello HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
told = [len(await self.b.receive()) > 0]
try:
    await self.a.receive()
except Revoked as error:
    told.append(error.rule)
await self.a.aclose()
await self.b.aclose()
return told
"""
    assert await plugin.call("run", code=code) == [True, "granted.example"]
    assert [(event.action, event.target) for event in events if not event.allowed] == [("update", "granted.example:80")]
    with pytest.raises(NetworkDenied):
        await plugin.call("run", code=GET)


async def test_a_policy_that_grants_more_does_so_at_once(load):
    """What was denied a moment ago is done."""
    plugin = await load(given=policy().deny_connect_host("granted.example"))
    with pytest.raises(NetworkDenied, match="denied by the rule"):
        await plugin.call("run", code=GET)
    await plugin.update_policy(policy())
    assert await plugin.call("run", code=GET) == "hello"


async def test_nothing_is_left_at_the_host(load, host, server):
    """Whatever a worker had open when it was killed: the host holds none of it afterwards."""
    await load("warm")
    await host["warm"].call(
        "run", code="await self.files.exists('f')\nawait self.http.get('http://granted.example/hello')"
    )
    await host.unload("warm")
    before = descriptors()
    plugin = await load()
    code = """
self.kept = [await self.connect("granted.example", 80) for _ in range(3)]
self.kept += [await self.files.open(f"f{n}", "w") for n in range(3)]
for _ in range(3):
    reply = await self.http.send(self.http.build_request("GET", "http://granted.example/slow"), stream=True)
    self.kept.append(reply)
await self._context.rpc.to("files").ask("announce")
"""
    await plugin.call("run", code=code)
    assert descriptors() > before + 6
    with pytest.raises(Exception, match="SIGKILL"):
        await plugin.call("run", code="os.kill(os.getpid(), 9)\nawait asyncio.Event().wait()")
    await host.unload("p")
    for task in list(server._connections):  # the server's own ends
        task.cancel()
    await until(lambda: descriptors() <= before)
    assert descriptors() <= before
