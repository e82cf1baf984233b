"""Many workers at once, and many kills: no call is lost, and nothing is left behind."""

import asyncio
import os
import signal

import psutil

from nyx_stream.errors import PluginCrashed
from tests.plugin_fixtures import backend_of

CODE = """
    import asyncio, os

    class Main(Plugin):
        @export
        async def pid(self) -> int: return os.getpid()
        @export
        async def echo(self, value: int) -> int:
            await asyncio.sleep(0)
            return value
        @export
        async def hang(self): await asyncio.Event().wait()
        @export
        async def count(self):
            number = 0
            while True:
                yield number
                number += 1
    """

KILLS = int(os.environ.get("NYX_STORM", "200"))
PLUGINS = 8


async def drain(plugin) -> int:
    """Consumes an endless stream until it breaks off; returns the number of items."""
    items = 0
    try:
        async for number in plugin.stream("count"):
            assert number == items
            items += 1
    except PluginCrashed:
        return items
    raise AssertionError("an endless stream ended")


async def storm(load, name: str, kills: int) -> tuple[int, int]:
    """Kills one plugin's worker repeatedly, with calls under way; returns the numbers of results and crashes."""
    results = crashes = 0
    for _ in range(kills):
        plugin = await load(CODE, name=name)
        pid = await plugin.call("pid")
        calls = [asyncio.ensure_future(plugin.call("echo", value=value)) for value in range(8)]
        calls += [asyncio.ensure_future(plugin.call("hang")) for _ in range(2)]
        stream = asyncio.ensure_future(drain(plugin))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        for value, outcome in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            if isinstance(outcome, PluginCrashed):
                crashes += 1
            else:
                assert outcome == value
                results += 1
        await stream
    return results, crashes


async def test_kills_under_load_lose_no_call_and_leave_nothing(load, host):
    """Each call ends with its result or with PluginCrashed; no process, zombie, task or descriptor is left."""
    tasks = len(asyncio.all_tasks())
    per_plugin = max(1, KILLS // PLUGINS)
    counts = await asyncio.gather(*(storm(load, f"p{number}", per_plugin) for number in range(PLUGINS)))
    assert sum(map(sum, counts)) == per_plugin * PLUGINS * 10
    for number in range(PLUGINS):
        await host.unload(f"p{number}")
    zygote = psutil.Process(backend_of(host).processes.pid)
    left = [child for child in zygote.children(recursive=True) if child.status() != psutil.STATUS_RUNNING]
    assert [child.status() for child in left[1:]] == []  # one may be the spare that waits for the next plugin
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in left)
    # The task of the monitor ends after its next period, because there is nothing left to monitor.
    assert len([task for task in asyncio.all_tasks() if task.get_name() != "nyx:monitor"]) == tasks


async def test_many_workers_at_once(load, host):
    """A hundred workers start, answer and end together."""
    plugins = await asyncio.gather(*(load(CODE, name=f"p{number}") for number in range(100)))
    answers = await asyncio.gather(
        *(plugin.call("echo", value=n) for n, plugin in enumerate(plugins) for _ in range(3))
    )
    assert answers == [n for n in range(100) for _ in range(3)]
    pids = await asyncio.gather(*(plugin.call("pid") for plugin in plugins))
    assert len(set(pids)) == 100
    await asyncio.gather(*(host.unload(f"p{number}") for number in range(100)))
    assert not any(psutil.pid_exists(pid) for pid in pids)
