"""`nyx bench`: what each check costs, beside what it replaces. The benchmarks lie in the checkout only."""

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
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in about a minute.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Show the change since the figures of this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> int:
    """Measure every check beside its unguarded baseline, in one run."""
    if not (_CHECKOUT / "benchmarks" / "command.py").is_file():
        output.complain("the benchmarks are not in the installed package: run this in a checkout, installed with -e")
        return ExitCode.FILE
    files = {"--json": json, "--compare": compare, "--html": html}
    arguments = [word for name in only or () for word in ("--only", name)]
    arguments += ["--quick"] if quick else []
    arguments += [word for name, path in files.items() if path is not None for word in (name, os.path.abspath(path))]
    path = os.pathsep.join([str(_CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # A process of its own: what the command line has imported would be part of what is measured.
    done = subprocess.run(  # noqa: S603  # our own interpreter, and options that were parsed
        [sys.executable, "-m", "benchmarks", *arguments], env=os.environ | {"PYTHONPATH": path}, check=False
    )
    return done.returncode
