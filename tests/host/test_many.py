"""Closing a host scans the tasks and modules of the process a fixed number of times for any number of plugins."""

import asyncio
import linecache
import sys
from collections import Counter

import pytest

from nyx_stream import PluginHost
from nyx_stream.isolation.inline.tasks import Batcher

CODE = """
    import asyncio
    class Main(Plugin):
        async def setup(self):
            self.spawn(asyncio.Event().wait())
            self.stray = asyncio.create_task(self.forever())
        async def forever(self): await asyncio.Event().wait()
    """


async def looks_when_closing(many, make, tmp_path, monkeypatch) -> Counter[str]:
    """Counts the scans of all tasks or all modules while a host with `count` plugins closes."""
    counts: Counter[str] = Counter()
    real = asyncio.all_tasks

    def all_tasks(*arguments):
        counts["tasks"] += 1
        return real(*arguments)

    class Modules(dict[str, object]):
        def __iter__(self):
            counts["modules"] += 1
            return super().__iter__()

    async with PluginHost(data_dir=tmp_path / "data") as host:
        for number in range(many):
            await host.load(make(f"p{number}", CODE))
        monkeypatch.setattr(asyncio, "all_tasks", all_tasks)
        monkeypatch.setattr(sys, "modules", Modules(sys.modules))
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.startswith("_nyx_p")]:  # the real ones, behind the counted copy
        del sys.modules[name]
    return counts


async def test_closing_looks_at_the_process_as_often_for_many_as_for_few(make, tmp_path, monkeypatch):
    """Plugins that stop together share one scan, so the cost of closing is linear."""
    few = await looks_when_closing(3, make, tmp_path, monkeypatch)
    many = await looks_when_closing(40, make, tmp_path, monkeypatch)
    assert few == many
    assert few["tasks"] <= 3
    assert few["modules"] <= 1


async def test_nothing_of_many_plugins_is_left(make, tmp_path):
    """No tasks, modules, finders or cached source lines."""
    before = asyncio.all_tasks(), set(sys.modules), list(sys.meta_path), set(linecache.cache)
    async with PluginHost(data_dir=tmp_path / "data") as host:
        for number in range(20):
            await host.load(make(f"p{number}", CODE))
            linecache.getline(str(tmp_path / "plugins" / f"p{number}" / "main.py"), 1)
    assert asyncio.all_tasks() == before[0]
    assert not [name for name in set(sys.modules) - before[1] if name.startswith("_nyx")]
    assert list(sys.meta_path) == before[2]
    assert set(linecache.cache) <= before[3]


async def test_work_together_is_done_once_and_survives_a_caller_that_is_cancelled():
    """Every caller gets the one result or error. Cancelling one caller doesn't affect the others."""
    done: list[list[int]] = []

    def work(items: list[int]) -> int:
        done.append(items)
        if 13 in items:
            raise ValueError("unlucky")
        return sum(items)

    together = Batcher(work)
    tasks = [asyncio.create_task(together.submit(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert [await task for task in tasks[1:]] == [6, 6]
    assert done == [[1, 2, 3]]
    results = await asyncio.gather(together.submit(13), together.submit(1), return_exceptions=True)
    assert [str(result) for result in results] == ["unlucky", "unlucky"]
