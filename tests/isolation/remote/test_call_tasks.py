"""Each call runs in its own task with its own context, and ends once, whatever is done to it."""

import asyncio
from contextvars import ContextVar

from nyx_stream.isolation.remote.worker.calls import CallTasks

MARK = ContextVar("MARK", default="none")


class Ends:
    """Records the calls of `done`, and waits for them."""

    def __init__(self) -> None:
        self.reported: list[tuple[int, bool]] = []
        self._more = asyncio.Event()

    def __call__(self, number: int, unstarted: bool) -> None:
        self.reported.append((number, unstarted))
        self._more.set()

    async def count(self, number: int) -> list[tuple[int, bool]]:
        while len(self.reported) < number:
            self._more.clear()
            await self._more.wait()
        return self.reported


async def test_each_call_has_its_own_task_and_context():
    """A call sees neither the task nor the context variables of another, one after the other or concurrent."""
    ends = Ends()
    tasks = CallTasks(asyncio.get_running_loop(), ends)
    seen: list[tuple[str, asyncio.Task[object] | None]] = []

    async def work(name: str) -> None:
        seen.append((MARK.get(), asyncio.current_task()))
        MARK.set(name)
        await asyncio.sleep(0)
        assert MARK.get() == name

    for number in (1, 2, 3):
        tasks.start(number, work(str(number)))
        await ends.count(number)
    for number in (4, 5):
        tasks.start(number, work(str(number)))
    assert sorted(await ends.count(5)) == [(number, False) for number in range(1, 6)]
    assert {mark for mark, _ in seen} == {"none"}
    assert len({id(task) for _, task in seen}) == 5


async def test_a_call_cancelled_before_its_first_step_is_reported():
    """It couldn't report that itself."""
    ends = Ends()
    tasks = CallTasks(asyncio.get_running_loop(), ends)

    async def work() -> None:
        await asyncio.Event().wait()

    for _ in range(2):  # the second in a task that was made ahead, where they are
        ends.reported.clear()
        tasks.start(1, work())
        tasks.cancel(1)
        ((number, _),) = await ends.count(1)
        assert number == 1
    tasks.cancel(1)
    tasks.start(2, work())
    await tasks.end()
    assert [number for number, _ in await ends.count(2)] == [1, 2]


async def test_a_plugin_that_cancels_every_task_can_still_be_called():
    """Cancelling tasks that aren't the plugin's own doesn't affect later calls."""
    ends, before = Ends(), asyncio.all_tasks()
    tasks = CallTasks(asyncio.get_running_loop(), ends)

    async def work() -> None:
        pass

    for number in range(1, 6):
        tasks.start(number, work())
        await ends.count(number)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        if number % 2:
            await asyncio.sleep(0)
    assert [number for number, _ in ends.reported] == [1, 2, 3, 4, 5]
