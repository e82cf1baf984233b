"""`nyx audit`: prints the events of an audit log that fit, counts them, or verifies that it is what was written."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.audit import AuditEvent
from nyx_stream.audit.following import Follower
from nyx_stream.audit.reading import Line, UnreadableLine, read_lines
from nyx_stream.audit.selection import Selection
from nyx_stream.cli import audit_reports, output
from nyx_stream.errors import AuditError
from nyx_stream.policy.limits import parse_duration
from nyx_stream.text import escape

_POLL = 0.2
"""Seconds between two looks at a file that is followed."""

COLUMNS: dict[str, Callable[[AuditEvent], str]] = {
    "TIME (UTC)": lambda event: audit_reports.print_time(event.time),
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
    """`show` prints what is there, `tail` the last events, and with `--follow` those to come; `stats` counts."""

    show = "show"
    tail = "tail"
    stats = "stats"
    verify = "verify"


class Verdict(StrEnum):
    """The two outcomes of a decision."""

    allowed = "allowed"
    denied = "denied"


def audit(
    what: Annotated[What, typer.Argument(help="Print the log or its end, count events, or verify the chain.")],
    file: Annotated[str, typer.Argument(help="The audit log; its sealed segments are read too.")],
    plugin: Annotated[str | None, typer.Option(help="Only this plugin.")] = None,
    capability: Annotated[str | None, typer.Option(help="Only this capability.")] = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Only this outcome.")] = None,
    since: Annotated[str | None, typer.Option(help='From this time on: "2026-01-31T10:00", or "15min" ago.')] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    lines: Annotated[int | None, typer.Option("-n", "--lines", min=1, help="For tail: how many; 10.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="For tail: go on with what comes.")] = False,
    key_file: Annotated[str | None, typer.Option(help="For verify: the file that holds the key.")] = None,
    head: Annotated[str | None, typer.Option(help="For verify: a hash that the log is known to have had.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="For verify: old segments may be elsewhere.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> int | None:
    """Read an audit log: who tried what, and what was decided by which rule; or verify that it is what was written."""
    only = Selection(
        plugin,
        capability,
        None if verdict is None else verdict is Verdict.allowed,
        None if since is None else _moment("since", since),
        None if until is None else _moment("until", until),
    )
    if what is not What.verify and (key_file is not None or head is not None or archived):
        raise typer.BadParameter("--key-file, --head and --archived are for verify")
    if what is not What.tail and (lines is not None or follow):
        raise typer.BadParameter("--lines and --follow are for tail")
    if what is What.verify:
        if only != Selection():
            raise typer.BadParameter("a chain is verified whole: verify takes no filter")
        return audit_reports.verify_log(file, key_file, head, archived=archived, json=json)
    try:
        if what is What.tail:
            _tail(file, only, lines or 10, follow=follow, json=json)
        elif what is What.stats:
            audit_reports.count_events((line.record.event for line in _fitting(read_lines(file), only)), json=json)
        else:
            _print(_fitting(read_lines(file), only), json=json)
    except UnreadableLine as error:
        raise AuditError(error.path, f"line {error.number}: {error.why}") from None
    return None


def print_events(events: Iterable[AuditEvent], columns: Iterable[str] = COLUMNS) -> None:
    """Prints events as a table of some of the `COLUMNS`."""
    shown = tuple(columns)
    output.table(shown, ([COLUMNS[name](event) for name in shown] for event in events))


def _tail(file: str, only: Selection, count: int, *, follow: bool, json: bool) -> None:
    with Follower(file) as log:
        _print(deque(_fitting(log.lines(), only), maxlen=count), json=json)
        while follow:
            for line in _fitting(log.lines(), only):
                output.say(_raw(line) if json else "  ".join(_cells(line)))
            time.sleep(_POLL)


def _fitting(lines: Iterable[Line], only: Selection) -> Iterator[Line]:
    return (line for line in lines if (event := line.record.event) is not None and only.fits(event))


def _print(lines: Iterable[Line], *, json: bool) -> None:
    if json:
        for line in lines:
            output.say(_raw(line))
    else:
        print_events(event for line in lines if (event := line.record.event) is not None)


def _raw(line: Line) -> str:
    # Printed as it stands in the file, which somebody else than Nyx may have written to.
    text = line.text.decode().removesuffix("\n")
    return escape(text, len(text))


def _cells(line: Line) -> Iterator[str]:
    event = line.record.event
    return (escape(show(event)) for show in COLUMNS.values()) if event is not None else iter(())


def _moment(option: str, text: str) -> float:
    """Reads a date and time, in UTC if it says nothing else, or how long ago."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return time.time() - parse_duration(text)
        except ValueError:
            raise typer.BadParameter(
                f'--{option} is a time such as "2026-01-31T10:00", or a duration such as "15min", not {text!r}'
            ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
