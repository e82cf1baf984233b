"""How many of our own functions one operation calls, and in how many files: a measure of layers, not of time.

`sys.setprofile` reports each call of a Python function, and each time a coroutine or generator goes on. Only code below
`nyx_core` and `nyx_stream` counts. One operation is the difference between a run that does it several times and a run
that does it once, so that the call around it drops out. `python -m benchmarks.bench_calls` lists the functions.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.http_server import serving
from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.timing import Budget
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.plugin_sandbox import SandboxPolicy

_CODE = """
import sys
from collections import Counter

from nyx_stream import Plugin, export


class Bench(Plugin):
    async def setup(self) -> None:
        await self.files.write_bytes("small", bytes(1024))

    async def _get(self, port: int) -> None:
        await self.http.get(f"http://127.0.0.1:{port}/")

    async def _open(self, port: int) -> None:
        async with self.files.open("small", "rb"):
            pass

    @export
    async def repeat(self, act: str, port: int, count: int) -> None:
        once = getattr(self, f"_{act}")
        for _ in range(count):
            await once(port)

    @export
    async def counted(self, act: str, port: int, count: int) -> dict[str, int]:
        calls = Counter()

        def profile(frame, event, _argument):
            if event == "call":
                code = frame.f_code
                calls[f"{code.co_filename}:{code.co_qualname}"] += 1

        once = getattr(self, f"_{act}")
        sys.setprofile(profile)
        try:
            for _ in range(count):
                await once(port)
        finally:
            sys.setprofile(None)
        return dict(calls)
"""
_MANIFEST = """
id = "{name}"
version = "1.0.0"
entry = "bench_plugin:Bench"
[permissions]
connect = ["127.0.0.1"]
write = ["$DATA"]
"""
_CLAIMS = {
    ("get", "inline"): ("inline GET", 90, 14),
    ("get", "process"): ("sealed GET, worker and host", 144, 23),
    ("open", "inline"): ("inline open and close of a file", None, None),
    ("open", "process"): ("sealed open and close of a file, worker and host", 93, None),
}
_OURS = ("/nyx_stream/", "/nyx_core/")
_SEVERAL = 9
_WARM = 3


def run(_budget: Budget) -> Iterator[Result]:
    for (act, level), sides in _count_all():
        claim, most_calls, most_files = _CLAIMS[act, level]
        if isinstance(sides, str):
            yield Row(f"our own calls, {claim}", reason=sides)
            continue
        parts = ", ".join(f"{side} {calls.total()} in {len(_files(calls))}" for side, calls in sides.items())
        calls = sum(sides.values(), Counter[str]())
        yield _row(f"our own calls, {claim}", calls.total(), most_calls, parts)
        yield _row(f"our own files, {claim}", len(_files(calls)), most_files, parts)


def _row(claim: str, value: int, bound: int | None, parts: str) -> Row:
    target = None if bound is None else Target("count", bound)
    return Row(claim, Measure("calls", (value,), "count"), None, target, parts)


def _files(calls: Counter[str]) -> set[str]:
    return {function.partition(":")[0] for function in calls}


def _count_all() -> Iterator[tuple[tuple[str, str], dict[str, Counter[str]] | str]]:
    with tempfile.TemporaryDirectory() as folder, serving() as server, asyncio.Runner() as runner:
        host = PluginHost(data_dir=f"{folder}/data")
        runner.run(host.__aenter__())
        try:
            for level in ("inline", "process"):
                try:
                    plugin = runner.run(_load(host, folder, level))
                except PluginError as error:
                    yield from (((act, level), str(error)) for act in ("get", "open"))
                    continue
                for act in ("get", "open"):
                    runner.run(plugin.call("repeat", act=act, port=server.port, count=_WARM))
                    yield (act, level), runner.run(_sides(plugin, level, act, server.port))
        finally:
            runner.run(host.__aexit__(None, None, None))


async def _load(host: PluginHost, folder: str, level: Any) -> Any:
    place = Path(folder) / level
    place.mkdir()
    (place / "plugin.toml").write_text(_MANIFEST.format(name=level), encoding="utf-8")
    (place / "bench_plugin.py").write_text(_CODE, encoding="utf-8")
    policy = SandboxPolicy.locked_down().allow_connect_host("127.0.0.1").allow_path_prefix("$DATA")
    return await host.load(place, policy=policy, isolation=level)


async def _sides(plugin: Any, level: str, act: str, port: int) -> dict[str, Counter[str]]:
    sides = {"host": _once([await _in_host(plugin, act, port, count) for count in (1, _SEVERAL)])}
    if level == "process":
        counts = [await plugin.call("counted", act=act, port=port, count=count) for count in (1, _SEVERAL)]
        sides["worker"] = _once([_ours(Counter(count)) for count in counts])
    return sides


async def _in_host(plugin: Any, act: str, port: int, count: int) -> Counter[str]:
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(profile)
    try:
        await plugin.call("repeat", act=act, port=port, count=count)
    finally:
        sys.setprofile(None)
    return _ours(calls)


def _ours(calls: Counter[str]) -> Counter[str]:
    ours: Counter[str] = Counter()
    for function, count in calls.items():
        place = max(function.rfind(package) for package in _OURS)
        if place >= 0:
            ours[function[place + 1 :]] += count
    return ours


def _once(counts: list[Counter[str]]) -> Counter[str]:
    """Returns what one operation called: rounded, as a busy loop may be woken once more or less."""
    one, several = counts
    each = {function: round((several[function] - one[function]) / (_SEVERAL - 1)) for function in several}
    return Counter({function: count for function, count in each.items() if count > 0})


def main() -> None:
    """Prints the counts of each function, side by side with its file."""
    for (act, level), sides in _count_all():
        print(f"\n== {act}, {level}")
        if isinstance(sides, str):
            print(sides)
            continue
        for side, calls in sides.items():
            print(f"-- {side}: {calls.total()} calls in {len(_files(calls))} files")
            for function, count in sorted(calls.items()):
                print(f"{count:6} {function.replace(':', ' ')}")
        print(f"-- together {sum(sides.values(), Counter[str]()).total()} in", end=" ")
        print(len(_files(sum(sides.values(), Counter[str]()))), "files")


if __name__ == "__main__":
    main()
