"""What a worker narrows, the host keeps under a number. A worker that names numbers as no proxy would gains nothing."""

import asyncio

import pytest

from nyx_stream.errors import NetworkDenied, PluginCrashed
from nyx_stream.isolation.remote.wire.values import MOST_NARROWED, MOST_RULES
from tests.isolation.broker.conftest import anyio_backend, events, host, load, recorded, server

__all__ = ["anyio_backend", "events", "host", "load", "recorded", "server"]

OPENING = """
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub
RULE = "GET http://granted.example/**"
lines = self._context._lines
GET = dict(method="GET", url="http://granted.example/hello", headers=[], whole=True)
async def ask(capability, action, number=0, **arguments):
    return (await CapabilityStub(lines, capability, number).ask(action, **arguments)).value
async def narrow(number=0, rules=(RULE,), returned=(), capability="http", **more):
    arguments = dict(rules=list(rules), terms={}, returned=list(returned)) | more
    return await ask(capability, "narrow", number, **arguments)
"""
HELLO = "return (await self.http.get('http://granted.example/hello')).text"

FAULTS = {
    "a number that was never given": "await ask('http', 'fetch', 7, **GET)",
    "the next number": "n = await narrow()\nawait ask('http', 'fetch', n + 1, **GET)",
    "that of another capability": "n = await narrow()\nawait ask('files', 'stat', n, path='f')",
    "one that was returned": "n = await narrow()\nawait narrow(returned=[n])\nawait ask('http', 'fetch', n, **GET)",
    "returning what is not held": "await narrow(returned=[7])",
    "returning one twice": "n = await narrow()\nawait narrow(returned=[n, n])",
    "narrowing what cannot be": "await narrow(capability='connect')",
    "closing what was not narrowed": "await ask('http', 'close')",
    "a negative number": "lines._channel().send(Kind.ASK, 9, body=BODY.replace(b'%', b'-1'))",
    "a text for a number": "lines._channel().send(Kind.ASK, 9, body=BODY.replace(b'%', b'\"1\"'))",
    "no rule": "await narrow(rules=[])",
    "rules without end": "await narrow(rules=['http://granted.example/a'] * 2000)",
    "a rule without end": "await narrow(rules=['http://granted.example/' + 'a' * 9000])",
    "a rule that is no text": "await narrow(rules=[7])",
    "a path that is none": "await narrow(capability='files', rules=['\\u20ac'])",
    "another mode": "await narrow(capability='files', rules=['f'], mode='w')",
    "a term that is no number": "await narrow(terms={'ttl': '60s'})",
    "terms without end": "await narrow(terms={str(n): 1 for n in range(99)})",
    "a field of its own": "await narrow(wide=True)",
}
RAW = """
from nyx_stream.isolation.remote.wire.frames import Kind
BODY = b'{"capability": "http", "action": "facts", "arguments": {}, "narrowed": %}'
"""


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_no_proxy_would_name_ends_the_worker(load, fault):
    """The worker is ended for it; its neighbour, which holds a number of its own, goes on."""
    good, bad = await load("good"), await load("bad")
    await good.call("run", code="self.narrow = self.http.narrow('GET http://granted.example/hello')")
    with pytest.raises(PluginCrashed, match="it broke the protocol"):
        await bad.call("run", code=f"{OPENING}{RAW}{FAULTS[fault]}\nawait asyncio.Event().wait()")
    assert await good.call("run", code=HELLO.replace("http.get", "narrow.get")) == "hello"


async def test_a_number_is_of_one_connection(load, events):
    """The number of another plugin's names nothing here: each decides, and records, under its own."""
    one, two = await load("one"), await load("two")
    code = f"{OPENING}return await narrow(rules=['GET http://granted.example/%s'])"
    numbers = [await one.call("run", code=code % "hello"), await two.call("run", code=code % "seen")]
    assert numbers == [1, 1]
    fetch = f"{OPENING}return (await ask('http', 'fetch', 1, **GET))['status']"
    assert await one.call("run", code=fetch) == 200
    events.clear()
    with pytest.raises(NetworkDenied, match=r"two: .* it is no part of what was handed on"):
        await two.call("run", code=fetch)
    assert {event.plugin for event in events} == {"two"}


async def test_what_was_closed_stays_closed(load):
    """Its number answers `Revoked`, for every action that it has."""
    plugin = await load()
    code = f"""{OPENING}
n = await narrow()
await ask("http", "close", n)
await ask("http", "close", n)
told = []
for act in (ask("http", "fetch", n, **GET), narrow(n)):
    try:
        await act
    except Revoked as error:
        told.append(error.reason)
return told
"""
    assert await plugin.call("run", code=code) == ["revoked: its client was closed"] * 2


async def test_what_is_narrowed_widens_for_nobody(load, events):
    """Not under its own number, nor after the one above it was returned, nor by a policy that grants more."""
    plugin = await load()
    code = f"""{OPENING}
n = await narrow(rules=["GET http://granted.example/seen"])
told = []
wider = narrow(n, rules=["http://evil.example"])
for act in (ask("http", "fetch", n, **GET), narrow(n), wider, narrow(n, returned=[n])):
    try:
        await act
    except (NetworkDenied, Revoked) as error:
        told.append(type(error).__name__)
return told
"""
    assert await plugin.call("run", code=code) == ["NetworkDenied"] * 3 + ["Revoked"]
    assert [event.action for event in events if not event.allowed] == ["GET", "narrow", "narrow"]


async def test_a_flood_is_bounded(load):
    """So many at once and no more; what is returned makes room, and leaves no lease and no timer at the host."""
    plugin = await load()
    code = f"""{OPENING}
held = []
try:
    while True:
        held.append(await narrow(terms={{"ttl": 1e8}}))
except LimitExceeded as error:
    told = [len(held), error.limit]
for _ in range(300):
    held.append(await narrow(terms={{"ttl": 1e8}}, returned=[held.pop(0)]))
return told
"""
    assert await plugin.call("run", code=code) == [MOST_NARROWED, "narrowed"]
    timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
    assert len(timers) < MOST_NARROWED + 50


async def test_a_chain_is_bounded(load):
    """Each request is looked at by every rule on the way up: they are counted together."""
    plugin = await load()
    code = f"""{OPENING}
n, depth = 0, 0
try:
    while True:
        n = await narrow(n)
        depth += 1
except LimitExceeded as error:
    return [depth, error.limit]
"""
    assert await plugin.call("run", code=code) == [MOST_RULES, "rules"]


async def test_patterns_that_cost_the_host_time_are_few(load):
    """Paths and whole subtrees are looked up; what has to be compared character by character is bounded."""
    plugin = await load()
    code = f"""{OPENING}
told = []
for rules in (["http://granted.example/*"] * 5, ["http://granted.example/" + "*a" * 600]):
    try:
        await narrow(rules=rules)
    except LimitExceeded as error:
        told.append([error.limit, error.allowed])
n = await narrow(rules=["http://granted.example/hel*"] * 4 + ["http://granted.example/a/**"] * 10)
try:
    await narrow(n, rules=["http://granted.example/hell*"])
except NetworkDenied as error:
    told.append(error.reason)
except LimitExceeded as error:
    told.append(error.limit)
return [*told, (await ask("http", "fetch", n, **GET))["status"]]
"""
    assert await plugin.call("run", code=code) == [["patterns", 4], ["patterns", 1024], "patterns", 200]


async def test_the_honest_proxy_meets_the_bounds_as_errors(load):
    """A plugin that holds too many, or asks for too much in one, is told so and lives."""
    plugin = await load()
    code = f"""
RULE = "GET http://granted.example/hello"
told, kept = [], []
for act in (
    lambda: [self.http.narrow(*[RULE] * {MOST_RULES + 1})],
    lambda: [self.http.narrow(f"{{RULE}}{{'a' * 9000}}")],
    lambda: [self.files.narrow("f" * 9000)],
    lambda: [kept.append(self.http.narrow(RULE)) for _ in range({MOST_NARROWED + 1})],
):
    try:
        act()
    except LimitExceeded as error:
        told.append(error.limit)
del kept[:]
return [told, (await self.http.narrow(RULE).get("http://granted.example/hello")).text]
"""
    assert await plugin.call("run", code=code) == [["rules", "rules", "rules", "narrowed"], "hello"]


async def test_narrowing_in_the_midst_of_traffic_keeps_everything_in_order(load):
    """While a worker waits for its narrowing on the stack, calls, answers and cancellations lose nothing."""
    plugin = await load()
    busy = """
RULE = "GET http://granted.example/**"
async def act(number):
    for _ in range(10):
        narrow = self.http.narrow(RULE)
        text = (await narrow.get("http://granted.example/hello")).text
        self.files.narrow("f")
        assert text == "hello"
await asyncio.gather(*map(act, range(4)))
return "done"
"""
    calls = [asyncio.ensure_future(plugin.call("run", code=busy)) for _ in range(4)]
    others = [asyncio.ensure_future(plugin.call("run", code=f"return {n}")) for n in range(100)]
    cancelled = asyncio.ensure_future(plugin.call("run", code="await asyncio.Event().wait()"))
    assert await asyncio.gather(*others) == list(range(100))
    cancelled.cancel()
    assert await asyncio.gather(*calls) == ["done"] * 4
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_narrowing_in_a_thread_is_an_error(load):
    """No loop runs there that could stand still."""
    plugin = await load()
    code = """
try:
    await asyncio.to_thread(self.http.narrow, "GET http://granted.example/hello")
except RuntimeError as error:
    return str(error)
"""
    assert "event loop" in await plugin.call("run", code=code)
