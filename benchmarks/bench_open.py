"""Opening a file so that no link leads out of its directory, against `os.open` and against checking `realpath` first.

The check that is commonly written (`realpath`, compare the prefix, open by name) reads every link on the way and loses
to whoever swaps a name in between. The second part is `files.read_bytes` against `aiofiles`, event loop and threads
included.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiofiles

from benchmarks.measure import Growth, Measure, Result, Row, Series, Target
from benchmarks.timing import Budget, Loop, awaited, interleave, statement
from nyx_core.beneath.opening import open_file
from nyx_core.beneath.root import Root, open_root
from nyx_core.beneath.walk import walking_opener
from nyx_stream.capabilities.files import GuardedFiles
from nyx_stream.capabilities.lease import Lease
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy

_CONTENT = b"x" * 4096
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_WAYS = ("safe open", "the walk", "realpath + prefix", "os.open")
_ABOVE_OS_OPEN = "above os.open lie openat2 through ctypes (0.7 µs), fstat (1.2 µs) and four Python frames (1.2 µs)"


def run(budget: Budget) -> Iterator[Result]:
    with _folder() as folder:
        yield from _opens(budget, folder)
        yield from _whole_files(budget, folder)


@contextmanager
def _folder() -> Iterator[str]:
    """A directory as deep as a plugin's data directory lies: whoever opens by name pays for the names above it."""
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(os.path.realpath(base), "plugins", "weather", "data")
        os.makedirs(folder)
        yield folder


def _file(folder: str, depth: int) -> str:
    """Makes a file of 4 KiB `depth` components below `folder` and returns its relative path."""
    path = "/".join([*(["d"] * (depth - 1)), "file.txt"])
    os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
    with open(f"{folder}/{path}", "wb") as file:
        file.write(_CONTENT)
    return path


def realpath_and_check(path: str, inside: str) -> None:
    """Opens and closes a file as most code does that wants to stay below `inside`."""
    real = os.path.realpath(path)
    if not real.startswith(inside):
        raise PermissionError(path)
    os.close(os.open(real, _FLAGS))


def without_objection(below: str, absolute: str) -> None:  # the signature of a judge
    """Leaves of a judge what it costs to ask the kernel for the canonical path."""


def _loops(folder: str, path: str, native: Root, walking: Root) -> dict[str, Loop]:
    whole, safe = f"{folder}/{path}", "close(open_file(root, path, flags))"
    names: dict[str, Any] = {"close": os.close, "open_file": open_file, "path": path, "flags": _FLAGS}
    return {
        "safe open": statement(safe, root=native, **names),
        "the walk": statement(safe, root=walking, **names),
        "realpath + prefix": statement(
            "check(path, inside)", check=realpath_and_check, path=whole, inside=folder + "/"
        ),
        "os.open": statement("close(open(path, flags))", close=os.close, open=os.open, path=whole, flags=_FLAGS),
        "judged": statement(
            "close(open_file(root, path, flags, judge=judge))", root=native, judge=without_objection, **names
        ),
    }


def _opens(budget: Budget, folder: str) -> Iterator[Result]:
    depths = [1, 4, 16, *([] if budget.quick else [64])]
    native, walking = open_root(folder), open_root(folder, walking_opener)
    try:
        loops = {
            f"{way} {depth}": loop
            for depth in depths
            for way, loop in _loops(folder, _file(folder, depth), native, walking).items()
        }
        times = interleave(budget, loops)
    finally:
        native.close()
        walking.close()
    for depth, names in ((1, "one name"), (4, "4 components")):
        yield from _rows(
            names, {name.rsplit(" ", 1)[0]: time for name, time in times.items() if name.endswith(f" {depth}")}
        )
    curves = tuple(Series(way, tuple((depth, times[f"{way} {depth}"]) for depth in depths)) for way in _WAYS)
    yield Growth("open + close by depth", "components below the root", curves)


def _rows(names: str, times: dict[str, Measure]) -> Iterator[Row]:
    safe, plain, check = times["safe open"], times["os.open"], times["realpath + prefix"]
    # A single name goes by os.open with O_NOFOLLOW; what the rest costs more is told where it shows.
    reason = "" if names == "one name" else _ABOVE_OS_OPEN
    yield Row(f"safe open + close, {names}, against os.open", safe, plain, Target("ratio", 1.5), reason)
    yield Row(f"safe open + close, {names}, against realpath + prefix", safe, check, Target("faster", 4))
    yield Row(f"the walk, {names}, against realpath + prefix", times["the walk"], check)
    yield Row(f"safe open with a deny rule inside, {names}, against os.open", times["judged"], plain)


def _whole_files(budget: Budget, folder: str) -> Iterator[Row]:
    path = _file(folder, 1)
    whole, places = f"{folder}/{path}", {"$DATA": folder}
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("$DATA"), plugin="bench", places=places)
    lease = Lease("bench", "files")

    async def plain_read() -> None:
        async with aiofiles.open(whole, "rb") as file:
            await file.read()

    async def plain_write() -> None:
        async with aiofiles.open(whole, "wb") as file:
            await file.write(_CONTENT)

    async def open_and_read() -> None:
        async with files.open(path, "rb") as file:
            await file.read()

    with asyncio.Runner() as runner:
        files = GuardedFiles(guard, lease, places=places)
        loops = {
            "aiofiles read": awaited(runner, plain_read),
            "read_bytes": awaited(runner, lambda: files.read_bytes(path)),
            "open + read": awaited(runner, open_and_read),
            "aiofiles write": awaited(runner, plain_write),
            "write_bytes": awaited(runner, lambda: files.write_bytes(path, _CONTENT)),
        }
        times = interleave(budget, loops)
        lease.revoke("the benchmark is over")
    read, write = times["aiofiles read"], times["aiofiles write"]
    yield Row("files.read_bytes, 4 KiB, against aiofiles open + read", times["read_bytes"], read, Target("ratio", 0.6))
    yield Row("files.open + read, 4 KiB, against aiofiles open + read", times["open + read"], read)
    yield Row("files.write_bytes (atomic), 4 KiB, against aiofiles open + write", times["write_bytes"], write)
