"""A thousand rounds of loading and unloading leave no task, descriptor, module, finder, thread or memory."""

import asyncio
import gc
import linecache
import logging
import os
import sys
import threading
import tracemalloc

from nyx_stream.policy import SandboxPolicy

CODE = """
    import asyncio
    import side
    from pydantic import BaseModel

    class Answer(BaseModel):
        value: int

    class Main(Plugin):
        async def setup(self):
            self.spawn(asyncio.Event().wait())
            self.ballast = bytearray(100_000)
        @export
        async def ask(self) -> Answer: return Answer(value=side.VALUE)
        @export
        async def count(self):
            for number in range(3): yield number
    """


def census() -> dict[str, int]:
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "modules": len(sys.modules),
        "finders": len(sys.meta_path),
        "importers": len(sys.path_importer_cache),
        "threads": threading.active_count(),
        "lines": len(linecache.cache),
        "loggers": len(logging.root.manager.loggerDict),
    }


async def one_round(host, folder, policy) -> None:
    handle = await host.load(folder, policy=policy)
    assert (await handle.call("ask")).value == 42
    items = handle.stream("count")
    await anext(items)
    await items.aclose()
    await host.unload("p")


async def test_a_thousand_rounds_leave_nothing(host, make, events):
    """After each hundred rounds the process has what it had before, and memory has stopped growing."""
    folder = make("p", CODE, permissions='write = ["$DATA"]', side="VALUE = 42")
    policy = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
    # Every round may run on another thread of the pool: let it have all of them before counting.
    await asyncio.gather(*(asyncio.to_thread(threading.Event().wait, 0.01) for _ in range(64)))
    for _ in range(20):
        await one_round(host, folder, policy)
    before = census()
    for _ in range(960):
        await one_round(host, folder, policy)
        events.clear()
    assert census() == before
    tracemalloc.start()
    try:
        start = await _memory_after(10, host, folder, policy, events)
        end = await _memory_after(10, host, folder, policy, events)
    finally:
        tracemalloc.stop()
    # One round holds 100 kB of ballast and some 200 kB of classes. A thread may hold on to the last one until it has
    # more to do; ten forgotten ones could not hide.
    assert end - start < 500_000


async def _memory_after(rounds, host, folder, policy, events) -> int:
    for _ in range(rounds):
        await one_round(host, folder, policy)
    events.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
