"""`nyx demo`: runs a plugin under a policy, with real requests over loopback, real files and an audit log."""

import json
import os
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from nyx_stream.audit import verify
from nyx_stream.cli import output
from nyx_stream.cli.audit import print_events, verify_log
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.interrupts import run_async
from nyx_stream.demo.basic import open_basic_demo
from nyx_stream.demo.live import LEVELS, DemoAction, LiveDemo, open_live_demo
from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.backend import Level

_BASIC_COLUMNS = ("CAPABILITY", "ACTION", "TARGET", "VERDICT", "LAYER", "RULE")
_LIVE_COLUMNS = ("CAPABILITY", "ACTION", "TARGET", "VERDICT", "LAYER", "REASON")

_LEVEL_DESCRIPTIONS = {
    "inline": "in the host's own process",
    "process": "in its own process, which the kernel has sealed",
}

_SEALED = """
Another record shows how the process was sealed, layer by layer (nyx audit show --capability sandbox)."""

_UNEXPECTED = "THIS IS NOT WHAT THE STEP CLAIMS"


def demo(
    live: Annotated[bool, typer.Option("--live", help="Show grants that change while a plugin runs.")] = False,
) -> int | None:
    """Show what a plugin may do, and the audit log of it."""
    return run_async(_show_live() if live else _show_basic())


async def _show_basic() -> None:
    async with open_basic_demo() as demo:
        output.print_text("The operator's policy:\n")
        output.print_text(_indented(demo.policy))
        output.print_text(f"\nThe plugin {demo.handle.id} requests:\n")
        rows = demo.handle.grant.rows()
        output.print_table(("KIND", "RULE", "WHY"), ((row.kind, row.asked, row.why or "-") for row in rows))
        async for step in demo.steps():
            output.print_text(f"\n{step.title}: {step.call}\n")
            if step.denial is None:
                output.print_text(f"  allowed: {json.dumps(to_jsonable_python(step.result))}")
            else:
                output.print_text(_indented(step.denial))
    output.print_text("\nThe audit trail:\n")
    print_events(demo.trail, _BASIC_COLUMNS)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())


async def _show_live() -> ExitCode:
    """Runs the live demo; returns OK only if each step did what it claims."""
    async with open_live_demo() as demo:
        code = ExitCode.OK
        for level in LEVELS:
            code = max(code, await _show_level(demo, level))
        return max(code, _show_verification(demo))


async def _show_level(demo: LiveDemo, level: Level) -> ExitCode:
    output.print_text(f"Level {level}: the plugin runs {_LEVEL_DESCRIPTIONS[level]}")
    code, number = ExitCode.OK, 0
    try:
        async for action in demo.actions(level):
            number += 1
            _print_action(number, action)
            if not action.as_claimed:
                code = ExitCode.DENIED
    except PluginLoadError as error:
        output.print_text(f"\n  not shown: {error}\n")
        return ExitCode.SANDBOX
    output.print_text(f"\nThe audit trail of level {level}:\n")
    trail = demo.trail()
    print_events((event for event in trail if event.kind != "report"), _LIVE_COLUMNS)
    if any(event.kind == "report" for event in trail):
        output.print_text(_SEALED)
    output.print_text("")
    return code


def _print_action(number: int, action: DemoAction) -> None:
    output.print_text(f"\n{number}. {action.title}\n")
    for line in action.calls:
        output.print_text(f"     {line}")
    for text in action.outcome:
        output.print_text(_indented(text))
    if not action.as_claimed:
        output.print_text(f"  {_UNEXPECTED}")


def _show_verification(demo: LiveDemo) -> ExitCode:
    output.print_text(f"$ nyx audit verify {os.path.basename(demo.log)}")
    intact = verify_log(demo.log) == ExitCode.OK
    copy = demo.tamper()
    output.print_text(f"\nIn a copy, one byte of line {copy.line} is changed: {copy.before!r} to {copy.after!r}.\n")
    output.print_text(f"$ nyx audit verify {os.path.basename(copy.path)}")
    found = verify_log(copy.path) != ExitCode.OK
    fault = verify(copy.path).fault
    located = fault is not None and (fault.path, fault.line) == (copy.path, copy.line)
    if intact and found and located:
        return ExitCode.OK
    output.print_text(_UNEXPECTED)
    return ExitCode.DENIED
