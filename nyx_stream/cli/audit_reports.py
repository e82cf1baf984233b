"""What `nyx audit stats` and `nyx audit verify` print."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

import typer

from nyx_stream.audit import AuditEvent, Verification, verify
from nyx_stream.audit.chain import read_key
from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.text import escape


def print_time(moment: float) -> str:
    """Returns a time in UTC, to the millisecond; `-` for one that no calendar has."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return "-"


def count_events(events: Iterable[AuditEvent | None], *, json: bool) -> None:
    """Prints how many events there are of each plugin, kind and capability, and how many of them were denied."""
    allowed: Counter[tuple[str, str, str]] = Counter()
    denied: Counter[tuple[str, str, str]] = Counter()
    first, last = float("inf"), float("-inf")
    for event in events:
        if event is not None:
            (allowed if event.allowed else denied)[event.plugin or "-", event.kind, event.capability] += 1
            first, last = min(first, event.time), max(last, event.time)
    rows = [(*group, allowed[group], denied[group]) for group in sorted({*allowed, *denied})]
    names = ("plugin", "kind", "capability", "allowed", "denied")
    if json:
        for row in rows:
            output.say_json(dict(zip(names, row, strict=True)), compact=True)
        return
    output.table([name.upper() for name in names], [[str(cell) for cell in row] for row in rows])
    if rows:
        total = allowed.total() + denied.total()
        output.say(f"\n{total} events, {print_time(first)} to {print_time(last)} UTC")


def verify_log(file: str, key_file: str | None, head: str | None, *, archived: bool, json: bool) -> int:
    """Verifies a log and prints what was found; returns the exit code.

    Raises:
        OSError: a file cannot be read.
    """
    key = b""
    if key_file is not None:
        try:
            key = read_key(key_file)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if head is not None and (len(head) != 64 or not set(head) <= set("0123456789abcdef")):
        raise typer.BadParameter("--head is 64 hexadecimal digits, as verify prints them")
    found = verify(file, key=key, head=head, archived=archived)
    if json:
        output.say_json(asdict(found))
    else:
        output.say(_told(found, published=head is not None))
    return ExitCode.OK if found.fault is None else ExitCode.DENIED


def _told(found: Verification, *, published: bool) -> str:
    what = f"{found.records} records in {found.segments} {'segment' if found.segments == 1 else 'segments'}"
    if found.fault is not None:
        return f"{escape(str(found.fault), 4096)}\nright before that: {what}, head {found.head}"
    lines = [f"unbroken: {what}", f"head {found.head}"]
    if found.unfinished:
        lines.append(f"unfinished last line of {found.unfinished} bytes: being written, or its writer was killed")
    if not found.sealed:
        lines.append("not sealed: being written to, its writer was killed, or the end was cut off")
    if not found.keyed:
        lines.append("no key: whoever can write the file could have computed the whole chain anew")
    if not published:
        lines.append("no published head: records after the last seal could have been cut off")
    return "\n".join(lines)
