"""`nyx bench`: runs the benchmarks, which are in the checkout but not in the installed package."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode

_CHECKOUT = Path(__file__).parents[2]


def bench(
    only: Annotated[list[str] | None, typer.Option(help="Only the benchmark of this name; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions; takes about a minute.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Show the change since the figures of this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> int:
    """Measure every check beside its unguarded baseline."""
    if not (_CHECKOUT / "benchmarks" / "command.py").is_file():
        output.print_error(
            "the installed package has no benchmarks; run these two commands in a checkout of the repository:\n"
            "  pip install '.[bench]'\n"
            "  python -m benchmarks"
        )
        return ExitCode.FILE
    files = {"--json": json, "--compare": compare, "--html": html}
    arguments = [word for name in only or () for word in ("--only", name)]
    arguments += ["--quick"] if quick else []
    arguments += [word for name, path in files.items() if path is not None for word in (name, os.path.abspath(path))]
    path = os.pathsep.join([str(_CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # A separate process, so that the modules that the command line imports don't affect the figures.
    done = subprocess.run(  # noqa: S603  # our own interpreter, and options that were parsed
        [sys.executable, "-m", "benchmarks", *arguments], env=os.environ | {"PYTHONPATH": path}, check=False
    )
    return done.returncode
