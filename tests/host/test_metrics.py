"""A host's metrics: counts that add up, quantiles of call durations, and the usage of a plugin's process."""

import asyncio
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.errors import PluginBusy, PluginCallError, PluginTimeout
from nyx_stream.host.observability.metrics import RECENT_CALLS, CallCount
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Server, reply
from tests.conformance.machine import sealed_here
from tests.plugin_fixtures import run_of, until

CODE = """
import asyncio
class Main(Plugin):
    @export
    async def ping(self) -> None: ...
    @export
    async def fail(self) -> None: raise RuntimeError
    @export
    async def hang(self) -> None: await asyncio.Event().wait()
    @export
    async def count(self):
        yield 1
    @export
    async def keep(self) -> None:
        await self.files.write_text("x", "text")
        await self.files.read_text("/etc/passwd")
"""


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=2 * RECENT_CALLS))
def test_a_quantile_is_what_that_share_of_the_last_calls_did_not_exceed(durations):
    """Quantiles are by nearest rank over the last calls; the sum is over all."""
    count = CallCount()
    for took in durations:
        count.recent.append(took)
        count.timed += 1
        count.seconds += took
    last = sorted(durations[-RECENT_CALLS:])
    latency = count.latency()
    assert latency.calls == len(durations)
    for share, value in ((0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99)):
        assert value in last
        assert sum(took <= value for took in last) >= share * len(last)
        assert sum(took < value for took in last) < share * len(last)


def test_without_a_call_there_are_no_quantiles():
    """They are None, not zero, because nothing was measured."""
    assert CallCount().latency().p50 is None


async def test_every_way_a_call_ends_is_counted_and_timed(host, make):
    """Results, errors and timeouts have a duration; refusals and streams have none; all add up."""
    folder = make("p", CODE, limits='call_timeout = "50ms"\nconcurrency = 1\nqueue = 1')
    handle = await host.load(folder)
    for _ in range(3):
        await handle.call("ping")
    with pytest.raises(PluginCallError):
        await handle.call("fail")
    assert [item async for item in handle.stream("count")] == [1]
    slow, behind = (asyncio.ensure_future(handle.call("hang")) for _ in range(2))
    await until(lambda: handle.stats().waiting == 1)
    with pytest.raises(PluginBusy):
        await handle.call("ping")
    assert (handle.metrics().stats.active, handle.metrics().stats.waiting) == (1, 1)
    for call in (slow, behind):
        with pytest.raises(PluginTimeout):
            await call
    found = handle.metrics()
    stats = found.stats
    assert (stats.calls, stats.failed, stats.timeouts, stats.refused, stats.active) == (8, 3, 2, 1, 0)
    assert found.latency.calls == 6
    assert found.latency.seconds == stats.seconds
    assert found.latency.p50 < 0.05 <= found.latency.p99 <= found.latency.seconds


async def test_a_snapshot_is_a_plain_value(host, make):
    """It is frozen and can be encoded as JSON."""
    await host.load(make("p", CODE))
    found = host.metrics()["p"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.opens = 1
    read = json.loads(json.dumps(dataclasses.asdict(found)))
    assert (read["plugin"], read["version"], read["isolation"], read["state"]) == ("p", "1.0", "inline", "running")


async def test_an_inline_plugin_has_no_memory_of_its_own(host, make):
    """It shares the host's memory and processor time, so both are None."""
    found = (await host.load(make("p", CODE))).metrics()
    assert (found.memory, found.cpu_seconds) == (None, None)


@sealed_here
async def test_a_sealed_plugin_has(host, make):
    """Its memory is measured on request, on any thread, and is None after its process has ended."""
    handle = await host.load(make("p", CODE), isolation="process")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(host.metrics).result()["p"]
    assert found.memory > 1 << 20
    assert found.cpu_seconds >= 0
    await run_of(handle).stop()
    assert handle.metrics().memory is None


@pytest.mark.parametrize("level", ["inline", pytest.param("process", marks=sealed_here)])
async def test_opens_and_denials_are_counted_through_a_reload(host, make, level):
    """The host counts them at every level, without a budget, and a reload doesn't reset them."""
    folder = make("p", CODE, permissions='write = ["$DATA"]')
    handle = await host.load(folder, policy=SandboxPolicy.locked_down().allow_path_prefix("$DATA"), isolation=level)
    for number in (1, 2):
        with pytest.raises(PermissionError):
            await handle.call("keep")
        found = handle.metrics()
        assert (found.opens, found.stats.denied, found.requests) == (number, number, 0)
        await handle.reload()


ASKING = """
class Main(Plugin):
    @export
    async def post(self, url: str) -> int:
        http = self.http.narrow(f"POST {url}/**")
        return len((await http.post(url + "/", content=b"y" * 500)).content)
"""


@pytest.mark.parametrize("level", ["inline", pytest.param("process", marks=sealed_here)])
async def test_bytes_are_counted_with_and_without_a_budget(host, make, level):
    """The host counts them at every level, also through narrowed clients. Refused requests aren't counted."""
    async with Server(reply(200, b"x" * 1000)) as server:
        grant = SandboxPolicy.locked_down().allow_request(f"POST {server.url}/**")
        code = ASKING if level == "inline" else ASKING.replace('self.http.narrow(f"POST {url}/**")', "self.http")
        folder = make("p", code, permissions=f'request = ["POST {server.url}/**"]')
        handle = await host.load(folder, policy=grant, isolation=level)
        assert await handle.call("post", url=server.url) == 1000
        once = handle.metrics()
        assert once.requests == 1
        assert 1000 < once.bytes_in < 1200
        assert 500 < once.bytes_out < 1000
        await handle.lease("http", requests=1)
        assert await handle.call("post", url=server.url) == 1000
        with pytest.raises(PermissionError):
            await handle.call("post", url=server.url)
        twice = handle.metrics()
        assert (twice.requests, twice.bytes_in) == (2, 2 * once.bytes_in)
