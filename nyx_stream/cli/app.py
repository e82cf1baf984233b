"""Registers the commands, and turns every error into one message and an exit code."""

import io
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError
from typing import Annotated

import typer

import nyx_stream
from nyx_core.sandbox import probe
from nyx_stream.audit.record import audit_schema
from nyx_stream.cli import log, output
from nyx_stream.cli.approve import approve
from nyx_stream.cli.audit import audit
from nyx_stream.cli.bench import bench
from nyx_stream.cli.check import check
from nyx_stream.cli.demo import demo
from nyx_stream.cli.exit_codes import ExitCode, code_of
from nyx_stream.cli.new import new
from nyx_stream.cli.options import Json
from nyx_stream.cli.plan import plan
from nyx_stream.cli.run import learn
from nyx_stream.cli.run import run as run_command
from nyx_stream.cli.why import why
from nyx_stream.errors import NyxError, PolicyError
from nyx_stream.policy.manifest_file import manifest_schema
from nyx_stream.policy.policy_file import policy_schema
from nyx_stream.text import escape

_log = logging.getLogger("nyx.cli")


def _version() -> str:
    try:
        return nyx_stream.__version__
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


def doctor(json: Json = False) -> None:
    """Show which sandbox layers this machine has.

    Also shows what would provide the layers that are missing. Changes nothing.
    """
    survey = probe()
    if json:
        output.print_json({"nyx": _version(), "python": platform.python_version(), **survey.to_dict()})
        return
    output.print_text(f"nyx {_version()}, Python {platform.python_version()}")
    for line in survey.to_table().splitlines():
        output.print_text(escape(line))


class SchemaOption(StrEnum):
    """The files that have a schema."""

    policy = "policy"
    manifest = "manifest"
    audit = "audit"


def schema(file: Annotated[SchemaOption, typer.Argument(help="Which file's schema.")]) -> None:
    """Print the JSON Schema of a TOML file or of the audit log.

    Editors use the schemas of policies and manifests to complete and check TOML.
    """
    schemas = {
        SchemaOption.policy: policy_schema,
        SchemaOption.manifest: manifest_schema,
        SchemaOption.audit: audit_schema,
    }
    output.print_json(schemas[file]())


app = typer.Typer(
    name="nyx",
    help="Run other people's plugins with exactly the capabilities you granted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: tuple[Callable[..., int | None], ...] = (
    demo,
    doctor,
    new,
    check,
    plan,
    run_command,
    learn,
    why,
    approve,
    audit,
    schema,
    bench,
)
for command in _COMMANDS:
    app.command(command.__name__)(command)


def _print_version(value: bool) -> None:
    if value:
        output.print_text(f"nyx {_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del version  # handled by its callback


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print an escape for a character that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    with log.logged_to_stderr() as problem:
        if problem is not None:
            output.print_error(problem)
            return ExitCode.USAGE
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        result = app(list(arguments) or ["--help"], prog_name="nyx", standalone_mode=False)
    except (BrokenPipeError, SystemExit):  # typer raises SystemExit when the reader of the output has gone away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)
    if result == ExitCode.INTERRUPTED:  # newer releases of typer return this instead of raising
        output.print_error("interrupted")
    return result if isinstance(result, int) else ExitCode.OK


def _report(error: Exception | KeyboardInterrupt) -> int:
    """Prints the message of an error and returns its exit code."""
    format_usage = getattr(error, "format_message", None)  # usage errors of typer, whose class depends on its release
    if format_usage is not None:
        output.print_error(f"{_one_line(format_usage())} (nyx --help)")
        return ExitCode.USAGE
    code = ExitCode.INTERRUPTED if isinstance(error, typer.Abort) else code_of(error)
    _log.debug("exit code %d", code, exc_info=error)
    # A policy error quotes the operator's own file, with a caret under the position.
    output.print_error(str(error) if isinstance(error, PolicyError) else log.redact_lines(_message(error, code)))
    return code


def _message(error: BaseException, code: ExitCode) -> str:
    if code is ExitCode.INTERRUPTED:
        return "interrupted"
    if code is ExitCode.INTERNAL:
        text = f"{type(error).__name__}: {escape(str(error), 300)}"
        return f"internal error: {text} (set {log.VARIABLE}=debug for a traceback)"
    if isinstance(error, NyxError):
        # The denial that made a call fail explains it, with the change that would allow it.
        cause = error.__cause__
        return f"{error}\n{cause}" if isinstance(cause, NyxError) else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{escape(str(error.filename))}: {error.strerror}"
    return _one_line(str(error))


def _one_line(text: str) -> str:
    return escape(" ".join(text.split()))
