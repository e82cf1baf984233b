"""`nyx demo --live`: authority that changes while a plugin runs, at every level, and a log that tells of it."""

import os

from nyx_stream.audit import verify
from nyx_stream.cli import audit_reports, output
from nyx_stream.cli.audit import print_events
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.demo.live import LEVELS, Act, Live, open_live
from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.backend import Level

TRAIL = ("CAPABILITY", "ACTION", "TARGET", "VERDICT", "LAYER", "REASON")

_ABOUT = {
    "inline": "in the host's own process",
    "process": "in a process of its own, which the kernel has sealed",
}


_SEALED = """
One more record tells how its process was sealed, layer by layer (nyx audit show --capability sandbox)."""


async def show_live() -> int:
    """Shows all of it; returns the exit code: 0 only if each step did what it claims."""
    async with open_live() as live:
        code = ExitCode.OK
        for level in LEVELS:
            code = max(code, await _show_level(live, level))
        return max(code, _verify(live))


async def _show_level(live: Live, level: Level) -> ExitCode:
    output.say(f"Level {level}: the plugin runs {_ABOUT[level]}")
    code, number = ExitCode.OK, 0
    try:
        async for act in live.acts(level):
            number += 1
            _print(number, act)
            if not act.held:
                code = ExitCode.DENIED
    except PluginLoadError as error:
        output.say(f"\n  not shown: {error}\n")
        return ExitCode.SANDBOX
    output.say(f"\nThe audit trail of level {level}:\n")
    trail = live.trail()
    print_events((event for event in trail if event.kind != "report"), TRAIL)
    if any(event.kind == "report" for event in trail):
        output.say(_SEALED)
    output.say("")
    return code


def _print(number: int, act: Act) -> None:
    output.say(f"\n{number}. {act.title}\n")
    for line in act.done:
        output.say(f"     {line}")
    for text in act.told:
        output.say("\n".join(f"  {line}" for line in text.splitlines()))
    if not act.held:
        output.say("  THIS IS NOT WHAT THE STEP CLAIMS")


def _verify(live: Live) -> ExitCode:
    output.say(f"$ nyx audit verify {os.path.basename(live.log)}")
    sound = audit_reports.verify_log(live.log, None, None, archived=False, json=False) == ExitCode.OK
    copy = live.tamper()
    output.say(f"\nIn a copy, one byte of line {copy.line} is changed: {copy.before!r} now reads {copy.after!r}.\n")
    output.say(f"$ nyx audit verify {os.path.basename(copy.path)}")
    found = audit_reports.verify_log(copy.path, None, None, archived=False, json=False) != ExitCode.OK
    fault = verify(copy.path).fault
    named = fault is not None and (fault.path, fault.line) == (copy.path, copy.line)
    if sound and found and named:
        return ExitCode.OK
    output.say("THIS IS NOT WHAT THE STEP CLAIMS")
    return ExitCode.DENIED
