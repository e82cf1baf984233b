"""A call into a plugin at level `inline`, against awaiting the same method with the same validation.

The baseline is `pydantic.validate_call(validate_return=True)` around the method, as a careful host would write it. The
host adds the timeout, the concurrency limit, the attribution of the running code and the accounting.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence

from pydantic import validate_call

from benchmarks.measure import Growth, Result, Row, Series, Target
from benchmarks.plugins import write_plugin
from benchmarks.timing import Budget, Loop, awaited, interleave
from nyx_stream import Handle, PluginHost

_ADDED = (
    "the host adds a timer for the timeout, the concurrency limit, the attribution of the running code and the "
    "accounting; each is one or two calls, and the method itself does nothing"
)


class Direct:
    """The plugin's methods without a host."""

    @validate_call(validate_return=True)
    async def empty(self) -> None:
        pass

    @validate_call(validate_return=True)
    async def echo(self, text: str) -> str:
        return text


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        host = PluginHost(data_dir=f"{folder}/data")
        runner.run(host.__aenter__())
        try:
            plugin = runner.run(host.load(write_plugin(folder)))
            yield from _rows(budget, runner, plugin)
            yield _by_plugins(budget, runner, host, folder)
        finally:
            runner.run(host.__aexit__(None, None, None))


def _rows(budget: Budget, runner: asyncio.Runner, plugin: Handle) -> Iterator[Row]:
    direct = Direct()
    times = interleave(
        budget,
        {
            "call": awaited(runner, lambda: plugin.call("empty")),
            "direct await": awaited(runner, lambda: direct.empty()),
            "call with text": awaited(runner, lambda: plugin.call("echo", text="hello")),
            "direct await with text": awaited(runner, lambda: direct.echo(text="hello")),
        },
    )
    yield Row("inline call of an empty method", times["call"], times["direct await"], Target("ratio", 3), _ADDED)
    yield Row(
        "inline call with a text both ways",
        times["call with text"],
        times["direct await with text"],
        Target("ratio", 3),
    )


def _by_plugins(budget: Budget, runner: asyncio.Runner, host: PluginHost, folder: str) -> Growth:
    sizes = [1, 10, 100, *([] if budget.quick else [1_000, 10_000])]
    handles: list[Handle] = []
    direct = Direct()
    loops: dict[str, Loop] = {"direct": awaited(runner, lambda: direct.empty())}

    async def load_up_to(size: int) -> None:
        names = [f"plugin-{number}" for number in range(len(handles), size)]
        handles.extend([await host.load(write_plugin(folder, name)) for name in names])

    async def unload() -> None:
        # One after the other: concurrently, each would search its task among those that stop the others.
        for handle in handles:
            await host.unload(handle.id)

    for size in sizes:
        runner.run(load_up_to(size))
        loops[str(size)] = _round_robin(runner, handles[:size])
    times = interleave(budget, loops, rounds=budget.curve)
    runner.run(unload())
    return Growth(
        "inline call by number of loaded plugins, in turn",
        "plugins",
        (
            Series("inline call", tuple((size, times[str(size)]) for size in sizes)),
            Series("direct await", tuple((size, times["direct"]) for size in sizes)),
        ),
    )


def _round_robin(runner: asyncio.Runner, handles: Sequence[Handle]) -> Loop:
    order = itertools.cycle(handles)

    async def repeat(count: int) -> float:
        chosen = list(itertools.islice(order, count))
        start = time.perf_counter()
        for handle in chosen:
            await handle.call("empty")
        return time.perf_counter() - start

    return lambda count: runner.run(repeat(count))
