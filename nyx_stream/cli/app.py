"""Puts the commands together and turns every error into one clear message and an exit code."""

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

import typer

from nyx_stream.cli import log, output
from nyx_stream.cli.approve import approve
from nyx_stream.cli.audit import audit
from nyx_stream.cli.bench import bench
from nyx_stream.cli.check import check
from nyx_stream.cli.demo import demo
from nyx_stream.cli.doctor import doctor
from nyx_stream.cli.exit_codes import ExitCode, code_of
from nyx_stream.cli.learn import learn
from nyx_stream.cli.new import new
from nyx_stream.cli.plan import plan
from nyx_stream.cli.run import run as run_command
from nyx_stream.cli.schema import schema
from nyx_stream.cli.why import why
from nyx_stream.errors import NyxError, PolicyError
from nyx_stream.text import escape

_log = logging.getLogger("nyx.cli")

app = typer.Typer(
    name="nyx",
    help="Run other people's plugins with exactly the capabilities you granted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "doctor": doctor,
    "new": new,
    "check": check,
    "plan": plan,
    "run": run_command,
    "learn": learn,
    "why": why,
    "approve": approve,
    "audit": audit,
    "schema": schema,
    "bench": bench,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code and lets no exception through."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its escape instead
            stream.reconfigure(errors="backslashreplace")
    with log.logged_to_stderr() as wrong:
        if wrong is not None:
            output.complain(wrong)
            return ExitCode.USAGE
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        result = app(list(arguments) or ["--help"], prog_name="nyx", standalone_mode=False)
    except (BrokenPipeError, SystemExit):  # typer exits by itself when whoever read the output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)
    if result == ExitCode.INTERRUPTED:  # what newer releases of typer make of it
        output.complain("interrupted")
    return result if isinstance(result, int) else ExitCode.OK


def _failed(error: Exception | KeyboardInterrupt) -> int:
    message = getattr(error, "format_message", None)  # the usage errors of typer, whichever click it brings along
    if message is not None:
        output.complain(f"{_flat(message())} (nyx --help)")
        return ExitCode.USAGE
    code = ExitCode.INTERRUPTED if isinstance(error, typer.Abort) else code_of(error)
    _log.debug("exit code %d", code, exc_info=error)
    output.complain(_told(error, code))
    return code


def _told(error: BaseException, code: ExitCode) -> str:
    if isinstance(error, PolicyError):  # of the operator's own files, with a caret under the place
        return str(error)
    return log.without_queries(_summary(error, code))


def _summary(error: BaseException, code: ExitCode) -> str:
    if code is ExitCode.INTERRUPTED:
        return "interrupted"
    if code is ExitCode.INTERNAL:
        return f"internal error: {type(error).__name__}: {escape(str(error), 300)} ({log.VARIABLE}=debug prints where)"
    if isinstance(error, NyxError):
        # The denial under a failed call is what explains it, with the change that would allow it.
        cause = error.__cause__
        return f"{error}\n{cause}" if isinstance(cause, NyxError) else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{escape(str(error.filename))}: {error.strerror}"
    return _flat(str(error))


def _flat(text: str) -> str:
    return escape(" ".join(text.split()))
