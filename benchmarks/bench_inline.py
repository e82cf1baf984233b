"""A plugin inline: a call beside a direct one, the tripwire beside none, and the import beside the bare interpreter.

The baselines are an await of the same method, validated both ways by pydantic's `validate_call`; the same `open` in a
process without an audit hook; an interpreter that imports nothing.
"""

import asyncio
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import validate_call

from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.timing import Budget, Loop, awaited, interleave, once_each, statement
from nyx_stream import PluginHost

_PLUGIN = """
from nyx_stream import Plugin, export

class Main(Plugin):
    @export
    async def empty(self) -> None: pass
    @export
    async def repeat(self, text: str, count: int = 2) -> list[str]: return [text] * count
"""
_MANIFEST = 'id = "bench"\nversion = "1.0"\nentry = "main:Main"\n'
_OPEN = "open(path).close()"


class _Direct:
    @validate_call(validate_return=True)
    async def empty(self) -> None:
        pass

    @validate_call(validate_return=True)
    async def repeat(self, text: str, count: int = 2) -> list[str]:
        return [text] * count


def run(budget: Budget) -> Iterator[Result]:
    # First, for the hook cannot be taken out of this process again, and the child must be forked without it.
    with _elsewhere(_open_loop()) as unhooked:
        yield from _calls(budget)
        times = interleave(budget, {"hook": _open_loop(), "no hook": unhooked})
        yield Row(
            "open and close a file in the host, tripwire installed",
            times["hook"],
            times["no hook"],
            Target("ratio", 1.1),
        )
    yield from _imports(budget)


def _calls(budget: Budget) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        Path(folder, "plugin.toml").write_text(_MANIFEST)
        Path(folder, "main.py").write_text(_PLUGIN)
        host = PluginHost(data_dir=folder)
        runner.run(host.__aenter__())
        try:
            call, direct = runner.run(host.load(folder)).call, _Direct()
            times = interleave(
                budget,
                {
                    "empty": awaited(runner, lambda: call("empty")),
                    "direct empty": awaited(runner, lambda: direct.empty()),
                    "repeat": awaited(runner, lambda: call("repeat", text="a", count=8)),
                    "direct repeat": awaited(runner, lambda: direct.repeat(text="a", count=8)),
                },
            )
        finally:
            runner.run(host.__aexit__(None, None, None))
    yield Row("inline call of an empty method", times["empty"], times["direct empty"], Target("ratio", 3))
    yield Row("inline call with arguments and a result", times["repeat"], times["direct repeat"], Target("ratio", 3))


def _imports(budget: Budget) -> Iterator[Row]:
    codes = {
        "import nyx_stream": 0.2,
        "from nyx_stream import Plugin, export": 0.2,
        "from nyx_stream import PluginHost": 0.2,
    }
    times = once_each(budget, {code: _interpreter(code) for code in (*codes, "pass")}, rounds=5 if budget.quick else 15)
    bare = times["pass"].values
    for code, bound in codes.items():
        beyond = tuple(whole - start for whole, start in zip(times[code].values, bare, strict=True))
        yield Row(f"{code}, beyond the interpreter", Measure(code, beyond), None, Target("s", bound))


def _interpreter(code: str) -> Loop:
    def loop(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    return loop


def _open_loop() -> Loop:
    return statement(_OPEN, path=__file__)


@contextmanager
def _elsewhere(loop: Loop) -> Iterator[Loop]:
    """Gives a loop that runs in a forked process, which stays as this one is now; it is timed there."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_serve, args=(there, loop), daemon=True)
    child.start()

    def ask(count: int) -> float:
        here.send(count)
        seconds: float = here.recv()
        return seconds

    try:
        yield ask
    finally:
        here.send(0)
        child.join()


def _serve(pipe: Any, loop: Loop) -> None:
    while count := pipe.recv():
        pipe.send(loop(count))
