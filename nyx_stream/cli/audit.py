"""`nyx audit`: reads an audit log and prints the events that fit."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.audit import AuditEvent, read_log
from nyx_stream.audit.line import from_line, to_line
from nyx_stream.cli import output

_POLL = 0.2
"""Seconds between two looks at a file that is followed."""

COLUMNS = ("TIME (UTC)", "PLUGIN", "CAPABILITY", "ACTION", "TARGET", "VERDICT", "RULE", "REASON", "LAYER")


class What(StrEnum):
    """`show` prints what is there; `tail` the last events, and with `--follow` those to come."""

    show = "show"
    tail = "tail"


class Verdict(StrEnum):
    """The two outcomes of a decision."""

    allowed = "allowed"
    denied = "denied"


def audit(
    what: Annotated[What, typer.Argument(help="show: the whole log; tail: its end.")],
    file: Annotated[str, typer.Argument(help="The audit log.")],
    plugin: Annotated[str | None, typer.Option(help="Only this plugin.")] = None,
    capability: Annotated[str | None, typer.Option(help="Only this capability.")] = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Only this outcome.")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="For tail: how many events.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="For tail: go on with what comes.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Read an audit log: who tried what, and what was decided by which rule."""

    def fits(event: AuditEvent) -> bool:
        return (
            (plugin is None or event.plugin == plugin)
            and (capability is None or event.capability == capability)
            and (verdict is None or event.allowed == (verdict is Verdict.allowed))
        )

    # Where the following begins is noted before the reading, so that no event falls between the two.
    end = os.stat(file).st_size
    try:
        events: Iterable[AuditEvent] = filter(fits, read_log(file))
        print_events(deque(events, maxlen=lines) if what is What.tail else events, json=json)
    except ValueError as error:
        raise OSError(0, str(error).removeprefix(f"{file}:"), file) from None
    if what is What.tail and follow:
        for event in filter(fits, _following(file, end)):
            output.say(_line(event) if json else "  ".join(_row(event)))


def print_events(events: Iterable[AuditEvent], *, json: bool = False) -> None:
    """Prints events as a table, or as the lines that the log has."""
    if json:
        for event in events:
            output.say(_line(event))
    else:
        output.table(COLUMNS, (_row(event) for event in events))


def _line(event: AuditEvent) -> str:
    return to_line(event).decode().rstrip("\n")


def _row(event: AuditEvent) -> tuple[str, ...]:
    return (
        datetime.fromtimestamp(event.time, UTC).strftime("%H:%M:%S.%f")[:-3],
        event.plugin or "-",
        event.capability,
        event.action,
        event.target,
        "allowed" if event.allowed else "denied",
        event.rule or "-",
        event.reason,
        event.layer,
    )


def _following(file: str, start: int) -> Iterator[AuditEvent]:
    with open(file, "rb") as log:
        log.seek(start)
        rest = b""
        while True:
            rest += log.readline()
            if rest.endswith(b"\n"):
                yield from_line(rest)
                rest = b""
            else:
                time.sleep(_POLL)
