"""`nyx audit`: reads an audit log and prints the events that fit."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from typing import Annotated, BinaryIO

import typer

from nyx_stream.audit import AuditEvent
from nyx_stream.audit.line import from_line, to_line
from nyx_stream.cli import output
from nyx_stream.errors import AuditError
from nyx_stream.text import escape

_POLL = 0.2
"""Seconds between two looks at a file that is followed."""

COLUMNS: dict[str, Callable[[AuditEvent], str]] = {
    "TIME (UTC)": lambda event: datetime.fromtimestamp(event.time, UTC).strftime("%H:%M:%S.%f")[:-3],
    "PLUGIN": lambda event: event.plugin or "-",
    "CAPABILITY": lambda event: event.capability,
    "ACTION": lambda event: event.action,
    "TARGET": lambda event: event.target,
    "VERDICT": lambda event: "allowed" if event.allowed else "denied",
    "LAYER": lambda event: event.layer,
    "RULE": lambda event: event.rule or "-",
    "REASON": lambda event: event.reason,
}
"""The columns of the table, and what each shows."""


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

    with open(file, "rb") as log:
        numbers = count(1)
        events: Iterable[AuditEvent] = filter(fits, _events(log, file, numbers))
        shown = deque(events, maxlen=lines) if what is What.tail else events
        if json:
            for event in shown:
                output.say(_line(event))
        else:
            print_events(shown)
        while follow and what is What.tail:
            for event in filter(fits, _events(log, file, numbers)):
                output.say(_line(event) if json else "  ".join(escape(show(event)) for show in COLUMNS.values()))
            time.sleep(_POLL)


def print_events(events: Iterable[AuditEvent], columns: Iterable[str] = COLUMNS) -> None:
    """Prints events as a table of some of the `COLUMNS`."""
    shown = tuple(columns)
    output.table(shown, ([COLUMNS[name](event) for name in shown] for event in events))


def _line(event: AuditEvent) -> str:
    return to_line(event).decode().rstrip("\n")


def _events(log: BinaryIO, file: str, numbers: Iterator[int]) -> Iterator[AuditEvent]:
    """Yields the events of the whole lines from where `log` stands; an unfinished line is left for the next time."""
    while line := log.readline():
        if not line.endswith(b"\n"):
            log.seek(-len(line), os.SEEK_CUR)
            return
        number = next(numbers)
        try:
            yield from_line(line)
        except ValueError as error:
            raise AuditError(file, f"line {number}: {error}") from None
