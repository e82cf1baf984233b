"""The tripwire: the cost of its audit hook for the host's own code, per `open`.

An audit hook cannot be removed (PEP 578), so two child processes run alternately, one with the hook and one without.
Both import the same modules.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Result, Row, Target
from benchmarks.timing import Budget, Loop, interleave

_CHILD = """
import os, sys, time
from nyx_stream.isolation.inline import tripwire
path, hooked = sys.argv[1:]
if hooked == "hooked":
    tripwire.install()

def opens(count):
    start = time.process_time()
    for _ in range(count):
        open(path, "rb").close()
    return time.process_time() - start

def bare(count):
    start = time.process_time()
    for _ in range(count):
        os.close(os.open(path, os.O_RDONLY))
    return time.process_time() - start

for line in sys.stdin:
    kind, count = line.split()
    print({"open": opens, "os.open": bare}[kind](int(count)), flush=True)
"""


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.touch()
        yield from _rows(budget, str(file))


def _rows(budget: Budget, path: str) -> Iterator[Row]:
    with _child(path, "hooked") as with_it, _child(path, "") as without:
        loops = {
            f"{kind}, {name}": _loop(child, kind)
            for kind in ("open", "os.open")
            for name, child in (("tripwire", with_it), ("none", without))
        }
        times = interleave(budget, loops)
    for kind in ("open", "os.open"):
        yield Row(
            f"{kind} and close in host code, tripwire installed",
            times[f"{kind}, tripwire"],
            times[f"{kind}, none"],
            Target("ratio", 1.1) if kind == "open" else None,
            "the interpreter calls a Python function for each event that an open raises",
        )


@contextmanager
def _child(path: str, hooked: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _CHILD, path, hooked]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as child:
        try:
            yield child
        finally:
            if child.stdin is not None:
                child.stdin.close()


def _loop(child: "subprocess.Popen[str]", kind: str) -> Loop:
    def loop(count: int) -> float:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the child has no pipes")
        child.stdin.write(f"{kind} {count}\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    return loop
