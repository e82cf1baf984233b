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
from benchmarks.session import Bench, Report, benches, run_all
from benchmarks.table import print_table

_HTML = "benchmarks.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs benchmarks; returns 0, or 1 where one broke off or nothing was timed, or 2 for wrong arguments."""
    there_are = benches()
    options = _parser(there_are).parse_args(arguments)
    if options.list:
        for bench in there_are:
            print(f"{bench.name:10} {bench.about}")
        return 0
    pyperf = peer("pyperf") if options.pyperf is not None else None
    if isinstance(pyperf, str):
        sys.exit(pyperf)
    before = _read(options.compare) if options.compare is not None else None
    chosen = [bench for bench in there_are if not options.only or bench.name in options.only]
    try:
        with progress_of(chosen) as progress:
            report = run_all(chosen, quick=options.quick, progress=progress)
    except KeyboardInterrupt:
        return 130  # as a shell says it of what SIGINT ended
    print_table(report, before)
    written = _write(options, report, before, pyperf)
    if not report.timed:
        print("nothing was timed", file=sys.stderr)
    return 0 if report.timed and written and not report.failed else 1


def _write(options: argparse.Namespace, report: Report, before: Report | None, pyperf: Any) -> bool:
    """Writes the files that were asked for; returns whether all could be written."""
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


def _parser(there_are: Sequence[Bench]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What each check costs, beside what it replaces."
    )
    names = [bench.name for bench in there_are]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, growth curves without their ends")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--html", type=Path, metavar="FILE", default=Path(_HTML), help=f"the report ({_HTML})")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="show the figures of an earlier --json beside")
    parser.add_argument("--pyperf", type=Path, metavar="FILE", help="write the values for pyperf's own commands")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    return parser


def _read(path: Path) -> Report:
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not the figures of an earlier run: {error!r}")
