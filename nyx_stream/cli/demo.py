"""`nyx demo`: a plugin under a policy, for real: real requests over loopback, real files, and the audit trail."""

import json
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from nyx_stream.cli import output
from nyx_stream.cli.audit import print_events
from nyx_stream.cli.demo_live import show_live
from nyx_stream.cli.interrupts import run_async
from nyx_stream.demo.show import Step, open_show

TRAIL = ("CAPABILITY", "ACTION", "TARGET", "VERDICT", "LAYER", "RULE")


def demo(
    live: Annotated[bool, typer.Option("--live", help="Show grants that change while a plugin runs.")] = False,
) -> int | None:
    """Show a plugin under a policy: what it may do, what it may not, and the record of both."""
    if live:
        return run_async(show_live())
    run_async(_demo())
    return None


async def _demo() -> None:
    async with open_show() as show:
        output.say("The operator's policy:\n")
        output.say(_indented(show.policy))
        output.say(f"\nThe plugin {show.handle.id} asks for:\n")
        rows = show.handle.grant.rows()
        output.table(("KIND", "RULE", "WHY"), ((row.kind, row.asked, row.why or "-") for row in rows))
        async for step in show.steps():
            _print(step)
    output.say("\nThe audit trail:\n")
    print_events(show.trail, TRAIL)


def _print(step: Step) -> None:
    output.say(f"\n{step.title}: {step.call}\n")
    if step.denial is None:
        output.say(f"  allowed: {json.dumps(to_jsonable_python(step.result))}")
    else:
        output.say(_indented(step.denial))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
