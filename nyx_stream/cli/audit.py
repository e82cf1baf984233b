"""`nyx audit`: prints, counts or verifies the records of an audit log."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.audit import AuditEvent, Verification, verify
from nyx_stream.audit.chain import read_key
from nyx_stream.audit.reader import Line, LogReader, Selection, UnreadableLine
from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.options import Json
from nyx_stream.errors import AuditError
from nyx_stream.policy.limits import parse_duration
from nyx_stream.text import escape

_POLL_INTERVAL = 0.2
"""Seconds between two reads of a file that is followed."""

COLUMNS: dict[str, Callable[[AuditEvent], str]] = {
    "TIME (UTC)": lambda event: _format_time(event.time),
    "PLUGIN": lambda event: event.plugin or "-",
    "CAPABILITY": lambda event: event.capability,
    "ACTION": lambda event: event.action,
    "TARGET": lambda event: event.target,
    "VERDICT": lambda event: "allowed" if event.allowed else "denied",
    "LAYER": lambda event: event.layer,
    "RULE": lambda event: event.rule or "-",
    "REASON": lambda event: event.reason,
}
"""The columns of the table, and how to format each."""


class AuditAction(StrEnum):
    """What to do with the log."""

    show = "show"
    tail = "tail"
    stats = "stats"
    verify = "verify"


class VerdictFilter(StrEnum):
    """The two outcomes of a decision."""

    allowed = "allowed"
    denied = "denied"


def audit(
    what: Annotated[AuditAction, typer.Argument(help="Print the log or its end, count events, or verify the chain.")],
    file: Annotated[str, typer.Argument(help="The audit log; its sealed segments are read too.")],
    plugin: Annotated[str | None, typer.Option(help="Only this plugin.")] = None,
    capability: Annotated[str | None, typer.Option(help="Only this capability.")] = None,
    verdict: Annotated[VerdictFilter | None, typer.Option(help="Only this outcome.")] = None,
    since: Annotated[
        str | None, typer.Option(help='Only events from this time on: "2026-01-31T10:00", or "15min" ago.')
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this time.")] = None,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=1, help="For tail: the number of events (default: 10).")
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="For tail: wait for new events.")] = False,
    key_file: Annotated[str | None, typer.Option(help="For verify: the file that holds the key.")] = None,
    head: Annotated[str | None, typer.Option(help="For verify: a hash that the log had earlier.")] = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="For verify: the oldest segments may be elsewhere.")
    ] = False,
    json: Json = False,
) -> int | None:
    """Print, count or verify the records of an audit log.

    A record says which plugin tried what, what was decided, and by which rule.
    """
    selection = Selection(
        plugin,
        capability,
        None if verdict is None else verdict is VerdictFilter.allowed,
        None if since is None else _parse_time("since", since),
        None if until is None else _parse_time("until", until),
    )
    if what is not AuditAction.verify and (key_file is not None or head is not None or archived):
        raise typer.BadParameter("--key-file, --head and --archived are for verify")
    if what is not AuditAction.tail and (lines is not None or follow):
        raise typer.BadParameter("--lines and --follow are for tail")
    if what is AuditAction.verify:
        if selection != Selection():
            raise typer.BadParameter("verify checks all records and takes no filter")
        return verify_log(file, key_file, head, archived=archived, json=json)
    try:
        with LogReader(file) as log:
            if what is AuditAction.tail:
                _print(deque(_selected(log, selection), maxlen=lines or 10), json=json)
                while follow:
                    for line, event in _selected(log, selection):
                        cells = (escape(cell(event)) for cell in COLUMNS.values())
                        output.print_text(_raw(line) if json else "  ".join(cells))
                    time.sleep(_POLL_INTERVAL)
            elif what is AuditAction.stats:
                _count((event for _, event in _selected(log, selection)), json=json)
            else:
                _print(_selected(log, selection), json=json)
    except UnreadableLine as error:
        raise AuditError(error.path, f"line {error.number}: {error.reason}") from None
    return None


def print_events(events: Iterable[AuditEvent], columns: Iterable[str] = COLUMNS) -> None:
    """Prints events as a table of some of the `COLUMNS`."""
    names = tuple(columns)
    output.print_table(names, ([COLUMNS[name](event) for name in names] for event in events))


def verify_log(
    file: str, key_file: str | None = None, head: str | None = None, *, archived: bool = False, json: bool = False
) -> ExitCode:
    """Verifies a log and prints the result; returns the exit code.

    Raises:
        OSError: a file can't be read.
    """
    key = b""
    if key_file is not None:
        try:
            key = read_key(key_file)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if head is not None and (len(head) != 64 or not set(head) <= set("0123456789abcdef")):
        raise typer.BadParameter("--head must be 64 hexadecimal digits, as verify prints them")
    result = verify(file, key=key, head=head, archived=archived)
    if json:
        output.print_json(asdict(result))
    else:
        output.print_text(_describe(result, published=head is not None))
    return ExitCode.OK if result.fault is None else ExitCode.DENIED


def _selected(log: LogReader, selection: Selection) -> Iterator[tuple[Line, AuditEvent]]:
    for line in log.lines():
        event = line.record.event
        if event is not None and selection.matches(event):
            yield line, event


def _print(selected: Iterable[tuple[Line, AuditEvent]], *, json: bool) -> None:
    if json:
        for line, _ in selected:
            output.print_text(_raw(line))
    else:
        print_events(event for _, event in selected)


def _raw(line: Line) -> str:
    # The line as the file has it, but escaped: programs other than Nyx may have written to the file.
    text = line.text.decode().removesuffix("\n")
    return escape(text, len(text))


def _count(events: Iterable[AuditEvent], *, json: bool) -> None:
    """Prints the number of allowed and denied events by plugin, kind and capability."""
    allowed: Counter[tuple[str, str, str]] = Counter()
    denied: Counter[tuple[str, str, str]] = Counter()
    first, last = float("inf"), float("-inf")
    for event in events:
        (allowed if event.allowed else denied)[event.plugin or "-", event.kind, event.capability] += 1
        first, last = min(first, event.time), max(last, event.time)
    rows = [(*group, allowed[group], denied[group]) for group in sorted({*allowed, *denied})]
    names = ("plugin", "kind", "capability", "allowed", "denied")
    if json:
        for row in rows:
            output.print_json(dict(zip(names, row, strict=True)), compact=True)
        return
    output.print_table([name.upper() for name in names], [[str(cell) for cell in row] for row in rows])
    if rows:
        total = output.count(allowed.total() + denied.total(), "event")
        output.print_text(f"\n{total}, {_format_time(first)} to {_format_time(last)} UTC")


def _describe(result: Verification, *, published: bool) -> str:
    what = f"{output.count(result.records, 'record')} in {output.count(result.segments, 'segment')}"
    if result.fault is not None:
        return f"{escape(str(result.fault), 4096)}\nvalid before that: {what}, head {result.head}"
    lines = [f"unbroken: {what}", f"head {result.head}"]
    if result.unfinished:
        size = output.count(result.unfinished, "byte")
        lines.append(f"unfinished last line of {size}: it is being written, or its writer was killed")
    if not result.sealed:
        lines.append("not sealed: the log is being written, its writer was killed, or the end was cut off")
    if not result.keyed:
        lines.append("no key: anyone who can write the file could have computed a new chain")
    if not published:
        lines.append("no published head: records after the last seal could have been cut off")
    return "\n".join(lines)


def _format_time(moment: float) -> str:
    """Returns a time in UTC with milliseconds, or `-` if it's out of range."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return "-"


def _parse_time(option: str, text: str) -> float:
    """Parses a date and time, in UTC unless it has an offset, or a duration before now."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return time.time() - parse_duration(text)
        except ValueError:
            raise typer.BadParameter(
                f'--{option} must be a time such as "2026-01-31T10:00" or a duration such as "15min", not {text!r}'
            ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
