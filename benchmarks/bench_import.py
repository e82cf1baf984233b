"""The cost of imports: CPU time of a child process, minus that of one that imports nothing.

Bytecode is cached, as after an installation. `nyx_core` alone imports nothing, so `nyx_core.sandbox` is measured.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Measure, Result, Row, Target
from benchmarks.timing import Budget, Loop, once_each

_CLAIMS = (
    ("import nyx_core.sandbox", 30e-3),
    ("import nyx_stream", 200e-3),
    ("from nyx_stream import Plugin, export", 200e-3),
    ("from nyx_stream import PluginHost", 200e-3),
    ("from nyx_stream.plugin_sandbox import SandboxGuard", 200e-3),
)

_ENTERED = """
import asyncio
from nyx_stream import PluginHost

async def main():
    async with PluginHost(data_dir="."):
        pass

asyncio.run(main())
"""

_CORE = "dataclasses, which imports inspect and ast, takes half of it; ctypes, re and hashlib most of the rest"
_HOST = "asyncio takes about 40 ms of it; entering a host imports pydantic"
_ENTERING = "pydantic and its first model take about 150 ms of it, asyncio about 40 ms"


def run(budget: Budget) -> Iterator[Result]:
    if not hasattr(os, "wait4"):
        for code, _ in _CLAIMS:
            yield Row(code, reason="this platform does not report the CPU time of one child process")
        return
    loops = {code: _child(code) for code in ("pass", *(code for code, _ in _CLAIMS), _ENTERED)}
    times = once_each(budget, loops, rounds=5 if budget.quick else 31)
    bare = times["pass"]
    for code, bound in _CLAIMS:
        reason = _HOST if "PluginHost" in code else _CORE if "nyx_core" in code else ""
        yield Row(f"{code}, beyond the interpreter", _beyond(times[code], bare), bare, Target("s", bound), reason)
    entered = _beyond(times[_ENTERED], bare)
    yield Row("the first PluginHost of a process, imported and entered", entered, None, None, _ENTERING)


def _beyond(times: Measure, bare: Measure) -> Measure:
    """Returns the time of each child minus that of the empty child in its round."""
    return Measure("import", tuple(taken - least for taken, least in zip(times.values, bare.values, strict=True)))


def _child(code: str) -> Loop:
    """Returns a loop over child processes that measures their user and system time."""
    where = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": where, "PYTHONDONTWRITEBYTECODE": ""}

    def loop(count: int) -> float:
        taken = 0.0
        for _ in range(count):
            process = subprocess.Popen(command, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise RuntimeError(f"{code}: exit status {process.returncode}")
            taken += usage.ru_utime + usage.ru_stime
        return taken

    return loop
