"""A worker is not trusted: a request that no worker binding would send ends that worker, and nothing else."""

import pytest

from nyx_stream.errors import PluginCrashed
from tests.isolation.broker.conftest import policy

ASK = "return (await self._context.rpc.to({capability!r}).ask({action!r}, **{arguments!r})).value"
GET = {"method": "GET", "url": "http://granted.example/hello", "headers": [], "timeout": [None] * 4, "whole_body": True}

FAULTS = {
    "no such capability": ("telnet", "open", {}),
    "no such action of http": ("http", "destroy", {}),
    "no such action of files": ("files", "chmod", {}),
    "no such action of connect": ("connect", "listen", {}),
    "a field too few": ("http", "fetch", {"method": "GET"}),
    "a field too many": ("http", "fetch", GET | {"verify": False}),
    "a number for a text": ("http", "fetch", GET | {"method": 5}),
    "a text for a number": ("connect", "open", {"host": "granted.example", "port": "80"}),
    "true for a number": ("connect", "open", {"host": "granted.example", "port": True}),
    "a header of three": ("http", "fetch", GET | {"headers": [["a", "b", "c"]]}),
    "a header outside Latin-1": ("http", "fetch", GET | {"headers": [["a", "\u20ac"]]}),
    "a timeout that isn't a number": ("http", "fetch", GET | {"timeout": ["5"] * 4}),
    "a timeout that is negative": ("http", "fetch", GET | {"timeout": [-1.0] * 4}),
    "a timeout too many": ("http", "fetch", GET | {"timeout": [1.0] * 5}),
    "too many headers": ("http", "fetch", GET | {"headers": [["a", "b"]] * 5000}),
    "a body that was not announced": ("http", "fetch", GET | {"body": 7}),
    "a content that isn't base64": ("http", "fetch", GET | {"content": "!"}),
    "a content that is too long": ("http", "fetch", GET | {"content": "AAAA" * 30_000}),
    "a redirect that may be followed": ("http", "refuse_redirect", {"scheme": "http", "location": "/x"}),
    "a flaw in the worker's words": ("http", "fetch", GET | {"flaw": "revoked: by the host"}),
    "another mode than there is": ("files", "open", {"path": "f", "mode": "rwb"}),
    "a text mode": ("files", "open", {"path": "f", "mode": "r"}),
    "a path that is none": ("files", "stat", {"path": ["f"]}),
    "a path that is no Latin-1": ("files", "stat", {"path": "\u20ac"}),
    "a path that is too long": ("files", "stat", {"path": "x" * 70_000}),
    "a whole file without an end": ("files", "write", {"path": "f", "body": -1}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_invalid_request_ends_the_worker(load, host, fault):
    """The worker ends, with the reason in the error; another plugin goes on."""
    capability, action, arguments = FAULTS[fault]
    good, bad = await load("good"), await load("bad")
    with pytest.raises(PluginCrashed, match="it broke the protocol"):
        await bad.call("run", code=ASK.format(capability=capability, action=action, arguments=arguments))
    assert await good.call("run", code="return (await self.http.get('http://granted.example/hello')).text") == "hello"


BODIES = {
    "a chunk over the limit": "b'\\x00\\x20\\x00\\x00' + bytes(100)",
    "an end that isn't a fault": "b'\\x00\\x00\\x00\\x00[]'",
    "a fault with unknown fields": 'b\'\\x00\\x00\\x00\\x00\' + b\'{"reason":"other","code":"x"}\'',
    "a fault that does not end": "b'\\x00\\x00\\x00\\x00' + bytes(2_000_000)",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("capability", ["http", "files"])
async def test_an_invalid_body_ends_the_worker(load, body, capability):
    """The bytes of a body are validated like every message."""
    plugin = await load()
    requests = {"http": ("fetch", GET | {"method": "POST"}), "files": ("write", {"path": "f"})}
    action, arguments = requests[capability]
    code = f"""
line = self._context.rpc.to({capability!r})
told = await line.ask("announce")
sock = socket.socket(fileno=told.descriptors[0])
asking = asyncio.ensure_future(line.ask({action!r}, body=told.value, **{arguments!r}))
sock.setblocking(False)
await asyncio.get_running_loop().sock_recv(sock, 1)
try:
    await asyncio.get_running_loop().sock_sendall(sock, {BODIES[body]})
except OSError:
    pass
sock.close()
return str(await asking)
"""
    with pytest.raises(PluginCrashed, match="it broke the protocol"):
        await plugin.call("run", code=code)


async def test_announced_bodies_are_bounded(load):
    """A worker can't make its host hold an unlimited number of descriptors."""
    plugin = await load()
    code = "line = self._context.rpc.to('files')\nfor _ in range(100): await line.ask('announce')"
    with pytest.raises(PluginCrashed, match=r"broke the protocol .* more than 64 bodies"):
        await plugin.call("run", code=code)


async def test_a_file_that_does_not_end_is_cut_at_the_memory_of_the_grant(load):
    """The host buffers no more of a write than the worker's memory limit."""
    plugin = await load()
    code = """
from nyx_stream.isolation.remote.worker.bodies import ask_with_body
async def endless():
    while True:
        yield bytes(1_000_000)
try:
    await ask_with_body(self._context.rpc.to("files"), "write", endless(), path="f")
except LimitExceeded as error:
    return [error.limit, await self.files.exists("f")]
"""
    assert await plugin.call("run", code=code) == ["memory", False]


async def test_a_worker_speaks_for_its_own_plugin_only(load, events):
    """A worker can't name another plugin: its requests are decided and audited as its own."""
    plugin = await load()
    await plugin.call("run", code="self._context.manifest = None\nawait self.files.write_text('mine', 'x')")
    assert {event.plugin for event in events} == {"p"}


async def test_unused_descriptors_and_bytes_do_no_harm(load):
    """Descriptors and answers that a plugin drops, and bytes that it writes where the host doesn't read, do no harm."""
    plugin = await load()
    code = """
line = self._context.rpc.to("http")
for _ in range(20):
    asking = asyncio.ensure_future(self.http.get("http://granted.example/big"))
    await asyncio.sleep(0)
    asking.cancel()
fetch = dict(method="GET", url="http://granted.example/big", headers=[], timeout=[None] * 4, whole_body=False)
for _ in range(5):
    pipe = socket.socket(fileno=(await line.ask("fetch", **fetch)).descriptors[0])
    with contextlib.suppress(OSError):
        pipe.send(b"never read")
    pipe.close()
told = await self._context.rpc.to("connect").ask("open", host="granted.example", port=80)
for descriptor in reversed(told.descriptors):
    sock = socket.socket(fileno=descriptor)
    sock.send(b"never read either", socket.MSG_NOSIGNAL)
    sock.close()
return (await self.http.get("http://granted.example/hello")).text
"""
    assert await plugin.call("run", code=code) == "hello"


async def test_responses_that_are_not_read_are_few(load):
    """A body outlives its request until the worker has read or closed it. Then other requests are served again."""
    plugin = await load(given=policy().with_limits(connections=2, request_timeout="1s"))
    arguments = GET | {"url": "http://granted.example/too-long", "whole_body": False}
    code = f"""
from nyx_stream.isolation.remote.wire.messages import CapabilityError
line, kept = self._context.rpc.to("http"), []
try:
    while len(kept) < 20:
        try:
            kept += (await line.ask("fetch", **{arguments!r})).descriptors
        except CapabilityError:
            pass  # the connections are taken
except LimitExceeded as error:
    told = [len(kept), error.limit, error.allowed]
for descriptor in kept:
    os.close(descriptor)
while True:
    try:
        return told + [(await self.http.get("http://granted.example/hello")).text]
    except LimitExceeded:
        await asyncio.sleep(0.01)
"""
    kept, *told = await plugin.call("run", code=code)
    assert told == ["connections", 2, "hello"]
    assert 4 <= kept < 20  # one that had room for its error is over for the host
