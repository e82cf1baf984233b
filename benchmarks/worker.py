"""One benchmark in a process of its own: `python -m benchmarks.worker MODULE quick|full`.

So none finds what another left behind: a million rules in memory, an audit hook, a warm cache. Each result goes to the
standard output as a line of JSON; what the benchmark itself prints goes to the standard error.
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
