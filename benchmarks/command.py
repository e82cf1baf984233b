"""The command line: `python -m benchmarks [--only NAME …] [--quick] [--json FILE] [--compare FILE] …`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.html_report import to_html
from benchmarks.peers import peer
from benchmarks.progress import progress_of
from benchmarks.pyperf_export import write_pyperf
from benchmarks.session import Benchmark, Report, find_benchmarks, run_all
from benchmarks.table import print_table

_HTML = "benchmarks.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs benchmarks. Returns 0; 1 if one failed or nothing was timed; 2 for wrong arguments."""
    available = find_benchmarks()
    options = _parser(available).parse_args(arguments)
    if options.list:
        for benchmark in available:
            print(f"{benchmark.name:10} {benchmark.about}")
        return 0
    pyperf = peer("pyperf") if options.pyperf is not None else None
    if isinstance(pyperf, str):
        sys.exit(pyperf)
    before = _read(options.compare) if options.compare is not None else None
    chosen = [benchmark for benchmark in available if not options.only or benchmark.name in options.only]
    try:
        with progress_of(chosen) as progress:
            report = run_all(chosen, quick=options.quick, progress=progress)
    except KeyboardInterrupt:
        return 130  # the exit status that a shell reports for SIGINT
    print_table(report, before)
    written = _write(options, report, before, pyperf)
    if not report.timed:
        print("nothing was timed", file=sys.stderr)
    return 0 if report.timed and written and not report.failed else 1


def _write(options: argparse.Namespace, report: Report, before: Report | None, pyperf: Any) -> bool:
    """Writes the requested files. Returns whether all could be written."""
    writers: list[tuple[str, Path | None, Callable[[Path], object]]] = [
        ("figures", options.json, lambda path: path.write_text(report.to_json(), encoding="utf-8")),
        ("report", options.html, lambda path: path.write_text(to_html(report, before), encoding="utf-8")),
        ("pyperf", options.pyperf, lambda path: write_pyperf(pyperf, report, os.fspath(path))),
    ]
    done = True
    for what, path, write in writers:
        if path is None:
            continue
        try:
            write(path)
            print(f"{what}: {path}")
        except OSError as error:
            print(f"{what}: {path}: {error.strerror}", file=sys.stderr)
            done = False
    return done


def _parser(available: Sequence[Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure every check next to its baseline."
    )
    names = [benchmark.name for benchmark in available]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter growth curves")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        default=Path(_HTML),
        help=f"write the report to this file (default: {_HTML})",
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="also show the figures of an earlier --json file")
    parser.add_argument("--pyperf", type=Path, metavar="FILE", help="write the values for pyperf's commands")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    return parser


def _read(path: Path) -> Report:
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not a file that --json wrote: {error!r}")
