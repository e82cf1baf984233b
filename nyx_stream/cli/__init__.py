"""The `nyx` command. This file imports nothing from the extra `cli`, so that it can report when it's missing."""

import sys
from collections.abc import Sequence

from nyx_stream.cli.exit_codes import ExitCode

__all__ = ["ExitCode", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command of `nyx` and returns its exit code. `arguments` defaults to those of the process."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before a command began, or after it ended
        print("nyx: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    try:
        import rich
        import typer
    except ModuleNotFoundError as error:
        print(f"nyx: {error.name} is not installed: pip install 'nyx-sandbox[cli]'", file=sys.stderr)
        return ExitCode.EXTRA
    del rich, typer
    from nyx_stream.cli.app import run

    return run(arguments)
