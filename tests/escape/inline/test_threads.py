"""Plugin code starts no threads, and its work in the framework's threads is attributed to it."""

import asyncio
import threading

import pytest

STARTS = {
    "threading": "threading.Thread(target=print).start()",
    "_thread": "import _thread\n_thread.start_new_thread(print, ())",
    "own executor": "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor().submit(print)",
    "timer": "threading.Timer(0, print).start()",
    "executor given to the loop": (
        "import concurrent.futures\n"
        "await asyncio.get_running_loop().run_in_executor(concurrent.futures.ThreadPoolExecutor(), print)"
    ),
}


@pytest.mark.parametrize("name", STARTS)
async def test_starting_a_thread_is_refused_and_recorded(rogue, name):
    """A thread has no attribution, so plugin code can't start one."""
    before = set(threading.enumerate())
    with pytest.raises(Exception, match="denied"):
        await rogue.run(STARTS[name])
    (event,) = rogue.denied
    assert (event.layer, event.capability) == ("tripwire", "thread")
    assert event.action in ("_thread.start_new_thread", "_thread.start_joinable_thread")
    assert set(threading.enumerate()) == before


CARRIED = {
    "asyncio.to_thread": "await asyncio.to_thread({what})",
    "run_in_executor": "await asyncio.get_running_loop().run_in_executor(None, {what})",
    "anyio.to_thread": "import anyio\nawait anyio.to_thread.run_sync({what})",
    "call_soon": (
        "done = asyncio.get_running_loop().create_future()\n"
        "def later():\n"
        "    try: done.set_result(({what})())\n"
        "    except Exception as error: done.set_exception(error)\n"
        "asyncio.get_running_loop().call_soon(later)\n"
        "await done"
    ),
    "own task": "async def task(): return ({what})()\nawait asyncio.create_task(task())",
    "spawned task": "async def task(): return ({what})()\nawait self.spawn(task())",
    "task group": (
        "async def task(): return ({what})()\n"
        "try:\n"
        "    async with asyncio.TaskGroup() as group: group.create_task(task())\n"
        "except* PermissionError as group: raise group.exceptions[0]"
    ),
}


@pytest.mark.parametrize("name", CARRIED)
async def test_attribution_follows_the_plugins_work(rogue, name):
    """In a thread of the pool, a callback or a task, the tripwire refuses the plugin's code the same things."""
    with pytest.raises(Exception, match=r"denied|during the call"):
        await rogue.run(CARRIED[name].format(what="lambda: open('/etc/hostname').read()"))
    assert [(event.layer, event.action) for event in rogue.denied if event.layer == "tripwire"] == [
        ("tripwire", "open")
    ]


@pytest.mark.parametrize("name", ["asyncio.to_thread", "run_in_executor", "anyio.to_thread", "call_soon", "own task"])
async def test_computing_in_a_thread_of_the_pool_is_allowed(rogue, name):
    """Plugin code may compute in a thread of the pool, even if the pool has to start one."""
    assert await rogue.run(CARRIED[name].format(what="lambda: sum(range(10))") + "\nreturn 'done'") == "'done'"
    assert not rogue.denied


async def test_the_hosts_work_in_the_same_pool_is_allowed(rogue, tmp_path):
    """A thread that has just worked for a plugin opens files for the host."""
    (tmp_path / "own.txt").write_text("own")
    await rogue.run("await asyncio.get_running_loop().run_in_executor(None, len, '')")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, (tmp_path / "own.txt").read_text) == "own"
    assert await asyncio.to_thread((tmp_path / "own.txt").read_text) == "own"
    assert not rogue.denied
