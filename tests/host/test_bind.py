"""`bind` validates results against a protocol at run time, and type checkers understand it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import BaseModel

from nyx_stream.errors import InvalidResult, UnknownMethod

CODE = """
    from pydantic import BaseModel
    from typing import Any, AsyncIterator

    class Point(BaseModel):
        x: int
        label: str = "plugin"

    class Main(Plugin):
        @export
        async def move(self, point: Point, by: int = 1) -> Point: return Point(x=point.x + by)
        @export
        async def anything(self) -> Any: return {"x": "no number"}
        @export
        async def points(self, count: int) -> AsyncIterator[Point]:
            for number in range(count): yield Point(x=number)
    """


class Point(BaseModel):
    """The host's class for a point."""

    x: int


class Mover(Protocol):
    async def move(self, point: Point, by: int = 7) -> Point: ...
    def points(self, count: int) -> AsyncIterator[Point]: ...


async def test_a_bound_protocol_calls_the_plugin_with_the_hosts_own_types(host, make):
    """Positional and named arguments work, defaults are the plugin's, results are instances of the host's classes."""
    mover = (await host.load(make("p", CODE))).bind(Mover)
    moved = await mover.move(Point(x=1), by=2)
    assert type(moved) is Point
    assert moved == Point(x=3)
    assert (await mover.move(Point(x=1))).x == 2
    assert [point async for point in mover.points(2)] == [Point(x=0), Point(x=1)]
    with pytest.raises(TypeError, match="missing a required argument: 'point'"):
        await mover.move()


async def test_a_result_that_breaks_the_protocol_is_the_plugins_fault(host, make):
    """A result fits the protocol even if the plugin's annotation allows more."""

    class Other(Protocol):
        async def anything(self) -> Point: ...

    other = (await host.load(make("p", CODE))).bind(Other)
    with pytest.raises(InvalidResult, match="p: anything: the result does not fit the protocol: x: Input should"):
        await other.anything()


async def test_a_protocol_that_does_not_fit_is_refused_at_once(host, make):
    """`bind` raises for a missing method or stream; it doesn't wait for the first call."""
    handle = await host.load(make("p", CODE))

    class Missing(Protocol):
        async def fly(self) -> int: ...

    class Stream(Protocol):
        def move(self, point: Point) -> AsyncIterator[Point]: ...

    class Single(Protocol):
        async def points(self, count: int) -> Point: ...

    class Open(Protocol):
        async def move(self, *points: Point) -> Point: ...

    with pytest.raises(UnknownMethod, match="it doesn't export the method 'fly' of the protocol"):
        handle.bind(Missing)
    with pytest.raises(UnknownMethod, match="move is not a stream, unlike in the protocol"):
        handle.bind(Stream)
    with pytest.raises(UnknownMethod, match="points is a stream, unlike in the protocol"):
        handle.bind(Single)
    with pytest.raises(TypeError, match="move: a method of a protocol must name every argument"):
        handle.bind(Open)


TYPED = """
from collections.abc import AsyncIterator
from typing import Protocol

from nyx_stream import Handle, Plugin, export


class Forecaster(Protocol):
    async def forecast(self, city: str) -> int: ...
    def ticks(self, count: int) -> AsyncIterator[str]: ...


async def good(handle: Handle) -> None:
    typed = handle.bind(Forecaster)
    number: int = await typed.forecast("oslo")
    async for tick in typed.ticks(number):
        text: str = tick
        print(text)


class Weather(Plugin):
    async def setup(self) -> None:
        self.spawn(self.forecast("oslo"))

    @export
    async def forecast(self, city: str) -> int:
        reply = await self.http.get(f"https://api.example.com/{city}")
        return reply.status_code


async def bad(handle: Handle, weather: Weather) -> None:
    typed = handle.bind(Forecaster)
    wrong: str = await typed.forecast("oslo")
    await typed.forecast(3)
    await typed.nothing()
    await weather.forecast(4)
"""


@pytest.mark.parametrize("checker", [["mypy", "--strict", "--no-error-summary"], ["pyright", "--outputjson"]])
def test_type_checkers_understand_bind_and_export(tmp_path, checker):
    """mypy and pyright see the protocol's types through `bind` and `export`, and report exactly four errors."""
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{Path.cwd()}"]}}')
    done = subprocess.run(
        [sys.executable, "-m", *checker, "typed.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(Path.cwd()), "HOME": str(Path.home()), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if checker[0] == "pyright":
        import json

        found = [item["range"]["start"]["line"] + 1 for item in json.loads(done.stdout)["generalDiagnostics"]]
    else:
        found = [
            int(line.split(":")[1])
            for line in done.stdout.splitlines()
            if line.startswith("typed.py:") and ": error:" in line
        ]
    first = TYPED.splitlines().index('    wrong: str = await typed.forecast("oslo")') + 1
    assert sorted(found) == [first, first + 1, first + 2, first + 3], done.stdout
