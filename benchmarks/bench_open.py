"""What it costs to open a file so that no link leads out, beside what it replaces.

Three claims: the safe open against a plain `os.open`; against the check that most code has instead (realpath, compare
the prefix, open by name), which loses to whoever swaps a name in between; and `files.read_bytes` against aiofiles.

    python -m benchmarks.bench_open [--quick]
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import aiofiles

from nyx_core.beneath.openat2 import probe
from nyx_core.beneath.opening import open_file
from nyx_core.beneath.root import open_root
from nyx_core.beneath.walk import walking_opener
from nyx_stream.capabilities.files import GuardedFiles
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

CONTENT = b"x" * 4096
FLAGS = os.O_RDONLY | os.O_CLOEXEC


class Row(NamedTuple):
    """One figure: medians in microseconds, and their ratio with what it should reach (`None`: shown, not claimed)."""

    claim: str
    baseline: float
    guarded: float
    reach: float | None = None

    @property
    def ratio(self) -> float:
        """Cost of the guarded way in units of the baseline."""
        return self.guarded / self.baseline


Call = Callable[[], object]


def allow(below: str, absolute: str) -> None:
    """A judge without objections: what is left is the cost of asking the kernel for the canonical path."""


def interleaved(calls: dict[str, Call], number: int, rounds: int) -> dict[str, float]:
    """Median microseconds per call of each, measured in turn so that a busy moment falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(number):
                call()
            taken[name].append((time.perf_counter() - start) / number * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


async def interleaved_async(
    calls: dict[str, Callable[[], Awaitable[object]]], number: int, rounds: int
) -> dict[str, float]:
    """`interleaved` for coroutines."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(number):
                await call()
            taken[name].append((time.perf_counter() - start) / number * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


@contextmanager
def folder(depth: int) -> Iterator[tuple[str, str]]:
    """A directory with a file of 4 KiB `depth` components below it: the directory and the path below."""
    with tempfile.TemporaryDirectory() as base:
        # As deep as a plugin's data directory lies: every way here pays for the names above it but the safe ones.
        real = os.path.join(os.path.realpath(base), "plugins", "weather", "data")
        path = "/".join(["d"] * (depth - 1) + ["file.txt"])
        os.makedirs(os.path.dirname(os.path.join(real, path)), exist_ok=True)
        with open(os.path.join(real, path), "wb") as file:
            file.write(CONTENT)
        yield real, path


def opens(depth: int, number: int, rounds: int) -> dict[str, float]:
    """All ways to open one file and close it again."""
    with folder(depth) as (base, path):
        whole = os.path.join(base, path)
        native = open_root(base)
        walking = open_root(base, walking_opener)

        def realpath_and_check() -> None:
            real = os.path.realpath(whole)
            if not real.startswith(base + os.sep):
                raise PermissionError(whole)
            os.close(os.open(real, FLAGS))

        try:
            return interleaved(
                {
                    "os.open": lambda: os.close(os.open(whole, FLAGS)),
                    "realpath": realpath_and_check,
                    "safe": lambda: os.close(open_file(native, path, os.O_RDONLY)),
                    "walk": lambda: os.close(open_file(walking, path, os.O_RDONLY)),
                    "judged": lambda: os.close(open_file(native, path, os.O_RDONLY, judge=allow)),
                },
                number,
                rounds,
            )
        finally:
            native.close()
            walking.close()


async def whole_files(number: int, rounds: int) -> list[Row]:
    """Reading and writing 4 KiB through the capability and through aiofiles."""
    with folder(1) as (base, path):
        whole = os.path.join(base, path)
        places = {"$DATA": base}
        guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("$DATA"), plugin="bench", places=places)
        lease = Lease("bench", "files")
        files = GuardedFiles(guard, lease, places=places)

        async def read_by_aiofiles() -> bytes:
            async with aiofiles.open(whole, "rb") as file:
                return await file.read()

        async def write_by_aiofiles() -> int:
            async with aiofiles.open(whole, "wb") as file:
                return await file.write(CONTENT)

        async def read_by_open() -> bytes:
            async with files.open(path, "rb") as file:
                content: bytes = await file.read()
                return content

        times = await interleaved_async(
            {
                "aiofiles read": read_by_aiofiles,
                "read_bytes": lambda: files.read_bytes(path),
                "open and read": read_by_open,
                "aiofiles write": write_by_aiofiles,
                "write_bytes": lambda: files.write_bytes(path, CONTENT),
            },
            number,
            rounds,
        )
        lease.revoke("the benchmark is over")
    return [
        Row("files.read_bytes, 4 KiB / aiofiles", times["aiofiles read"], times["read_bytes"], 0.6),
        Row("files.open and read, 4 KiB / aiofiles", times["aiofiles read"], times["open and read"]),
        Row("files.write_bytes (atomic), 4 KiB / aiofiles", times["aiofiles write"], times["write_bytes"]),
    ]


def run(quick: bool = False) -> list[Row]:
    """All rows; `quick` takes a few seconds."""
    number, rounds = (300, 15) if quick else (2000, 41)
    rows = []
    for depth in (1, 4) if quick else (1, 2, 4, 16, 64):
        times = opens(depth, max(number // depth, 20), rounds)
        names = "name" if depth == 1 else f"{depth} components"
        rows += [
            Row(f"safe open, {names} / os.open", times["os.open"], times["safe"], 1.5),
            Row(f"safe open, {names} / realpath and check", times["realpath"], times["safe"], 0.25),
            Row(f"the walk, {names} / realpath and check", times["realpath"], times["walk"]),
            Row(f"judged (a deny rule inside), {names} / os.open", times["os.open"], times["judged"]),
        ]
    return rows + asyncio.run(whole_files(number // 6, rounds // 2))


def main() -> None:
    """Prints the rows as a table."""
    reason = probe()
    sys.stdout.write(f"openat2: {'used' if reason is None else reason}\n")
    for row in run("--quick" in sys.argv[1:]):
        reach = "" if row.reach is None else f"  reach {row.reach:g}" + ("" if row.ratio <= row.reach else "  MISSED")
        sys.stdout.write(f"{row.claim:58}{row.baseline:9.2f} us{row.guarded:9.2f} us{row.ratio:7.2f} x{reach}\n")


if __name__ == "__main__":
    main()
