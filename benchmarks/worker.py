"""Runs one benchmark in its own process: `python -m benchmarks.worker MODULE quick|full`.

So no benchmark is affected by another's state: a million rules in memory, an audit hook, a warm cache. Each result is a
line of JSON on stdout; the benchmark's own output goes to stderr.
"""

import contextlib
import dataclasses
import importlib
import json
import sys

from benchmarks.measure import Row
from benchmarks.timing import FULL, QUICK


def main(module: str, size: str) -> None:
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for result in importlib.import_module(module).run(QUICK if size == "quick" else FULL):
            kind = "row" if isinstance(result, Row) else "growth"
            print(json.dumps({kind: dataclasses.asdict(result)}), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
