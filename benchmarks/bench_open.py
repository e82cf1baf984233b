"""Opening a file beneath a folder, so that no link leads out, next to what it replaces.

The baselines: a plain `os.open`; the common check (realpath, compare the prefix, open by name), which an attacker
defeats by swapping a name in between; and aiofiles for `files.read_bytes`.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiofiles

from benchmarks.measure import Growth, Measure, Result, Row, Series, Target
from benchmarks.timing import Budget, Loop, awaited, calls, interleave
from nyx_core.beneath.openat2 import probe
from nyx_core.beneath.opening import open_file
from nyx_core.beneath.root import open_root
from nyx_core.beneath.walk import walking_opener
from nyx_stream.capabilities.files import Files
from nyx_stream.capabilities.files.local_service import LocalFileService
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

_CONTENT = b"x" * 4096
_THROUGH_CTYPES = (
    "1.3 µs of the difference are os.fstat, which detects regular files and would put os.open at 1.36 ×; 0.6 µs are "
    "the Python around the two calls, and 0.5 µs are ctypes, which calls openat2"
)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_METHODS = {
    "safe": "safe open",
    "walk": "the walk, without openat2",
    "judged": "with a deny rule inside",
    "realpath": "realpath, compare, open",
    "os.open": "os.open",
}


def run(budget: Budget) -> Iterator[Result]:
    depths = [1, 4, 16, *([] if budget.quick else [64])]
    times = {depth: _opens(budget, depth) for depth in depths}
    reason = probe()
    why = "" if reason is None else f"openat2 cannot be used here: {reason}"
    for depth, name in ((1, "a name"), (4, "4 components")):
        safe, plain, checked = (times[depth][way] for way in ("safe", "os.open", "realpath"))
        yield Row(
            f"safe open + close of {name}, against os.open", safe, plain, Target("ratio", 1.5), why or _THROUGH_CTYPES
        )
        yield Row(f"safe open + close of {name}, against realpath and check", safe, checked, Target("faster", 4), why)
    yield Row("the same by the walk, 4 components", times[4]["walk"], times[4]["realpath"])
    yield Row("the same with a deny rule inside, 4 components", times[4]["judged"], times[4]["realpath"])
    yield Growth(
        "open + close by depth",
        "components below the grant",
        tuple(Series(name, tuple((depth, times[depth][way]) for depth in depths)) for way, name in _METHODS.items()),
    )
    yield from _full_path_files(budget)


def _allow(below: str, absolute: str) -> None:
    """Accepts every path, so that only the kernel's cost for the canonical path is measured."""


@contextmanager
def _folder(depth: int) -> Iterator[tuple[str, str]]:
    """Creates a file of 4 KiB, `depth` components below a directory. Yields the directory and the relative path."""
    with tempfile.TemporaryDirectory() as base:
        # As deep as a plugin's data directory: all methods but the safe ones resolve the names above it.
        real = os.path.join(os.path.realpath(base), "plugins", "weather", "data")
        path = "/".join(["d"] * (depth - 1) + ["file.txt"])
        os.makedirs(os.path.dirname(os.path.join(real, path)), exist_ok=True)
        with open(os.path.join(real, path), "wb") as file:
            file.write(_CONTENT)
        yield real, path


def _opens(budget: Budget, depth: int) -> dict[str, Measure]:
    """Times each way to open and close one file."""
    with _folder(depth) as (base, path):
        full_path = os.path.join(base, path)
        native, walking = open_root(base), open_root(base, walking_opener)

        def realpath_and_check() -> None:
            real = os.path.realpath(full_path)
            if not real.startswith(base + os.sep):
                raise PermissionError(full_path)
            os.close(os.open(real, _FLAGS))

        loops: dict[str, Loop] = {
            "os.open": calls(lambda: os.close(os.open(full_path, _FLAGS))),
            "realpath": calls(realpath_and_check),
            "safe": calls(lambda: os.close(open_file(native, path, os.O_RDONLY))),
            "walk": calls(lambda: os.close(open_file(walking, path, os.O_RDONLY))),
            "judged": calls(lambda: os.close(open_file(native, path, os.O_RDONLY, judge=_allow))),
        }
        try:
            return interleave(budget, loops)
        finally:
            native.close()
            walking.close()


def _full_path_files(budget: Budget) -> Iterator[Row]:
    """Reads and writes 4 KiB through the capability and through aiofiles. Wall time, because threads take part."""
    with _folder(1) as (base, path), asyncio.Runner() as runner:
        full_path = os.path.join(base, path)
        places = {"$DATA": base}
        guard = SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix("$DATA"), plugin="bench", places=places)
        lease = Lease("bench", "files")
        files = Files(LocalFileService(guard, lease, places=places))

        async def read_by_aiofiles() -> bytes:
            async with aiofiles.open(full_path, "rb") as file:
                return await file.read()

        async def write_by_aiofiles() -> int:
            async with aiofiles.open(full_path, "wb") as file:
                return await file.write(_CONTENT)

        async def read_by_open() -> bytes:
            async with files.open(path, "rb") as file:
                content: bytes = await file.read()
                return content

        ways = {
            "aiofiles read": read_by_aiofiles,
            "read_bytes": lambda: files.read_bytes(path),
            "open and read": read_by_open,
            "aiofiles write": write_by_aiofiles,
            "write_bytes": lambda: files.write_bytes(path, _CONTENT),
        }
        times = interleave(budget, {name: awaited(runner, way, clock=time.perf_counter) for name, way in ways.items()})
        lease.revoke("the benchmark is over")
    yield Row(
        "files.read_bytes of 4 KiB, against aiofiles", times["read_bytes"], times["aiofiles read"], Target("ratio", 0.6)
    )
    yield Row("files.open and read of 4 KiB, against aiofiles", times["open and read"], times["aiofiles read"])
    yield Row("files.write_bytes (atomic) of 4 KiB, against aiofiles", times["write_bytes"], times["aiofiles write"])
