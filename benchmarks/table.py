"""Prints the table at the end of a run: with `rich` if it is installed, as plain text otherwise."""

import textwrap

from benchmarks import figures
from benchmarks.measure import Row
from benchmarks.session import Report

_HEADS = ("claim", "guarded", "baseline", "figure", "spread", "target", "outcome")


def print_table(report: Report, before: Report | None = None) -> None:
    """Prints one line per row, then the reasons and the failures."""
    lines = [cells_of(row, before) for row in report.rows]
    heads = heads_of(before)
    try:
        _print_rich(heads, lines)
    except ImportError:
        _print_plain(heads, lines)
    for row in report.rows:
        if row.remark:
            print(textwrap.fill(f"{row.claim}: {row.remark}", 118, subsequent_indent="    "))
    for section in report.sections:
        if section.failure:
            print(f"{section.name} failed:\n{textwrap.indent(section.failure, '    ')}")
    print(f"peers: {peers(report)}")
    duration = f"{', quick' if report.quick else ''}, in {report.seconds:.0f} s"
    print(f"{summary(report)}; {' · '.join(report.machine.values())}{duration}")


def heads_of(before: Report | None) -> tuple[str, ...]:
    """Returns the column headings."""
    return (*_HEADS, "before") if before is not None else _HEADS


def summary(report: Report) -> str:
    """Returns how many targets were reached."""
    targets = [row for row in report.rows if row.target is not None]
    outcomes = [figures.outcome(row) for row in targets]
    counts = {outcome: outcomes.count(outcome) for outcome in ("reached", "missed", "not measured")}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def peers(report: Report) -> str:
    """Returns the peers that were measured, and those that are not installed."""
    installed = [f"{name} {version}" for name, version in report.peers.items() if version]
    absent = [name for name, version in report.peers.items() if not version]
    return "; ".join([", ".join(installed) or "none", *([f"not installed: {', '.join(absent)}"] if absent else [])])


def cells_of(row: Row, before: Report | None) -> tuple[str, ...]:
    """Returns the texts of one line, one per heading."""
    cells = (
        row.claim,
        figures.amount(row.guarded.median, row.guarded.unit) if row.guarded is not None else "",
        figures.amount(row.baseline.median, row.baseline.unit) if row.baseline is not None else "",
        figures.figure(row.value, row.kind) if row.value is not None else "",
        figures.spread(row),
        figures.target(row.target),
        figures.outcome(row),
    )
    return (*cells, _before(row, before)) if before is not None else cells


def _before(row: Row, before: Report) -> str:
    """Returns the earlier figure, and the ratio of the current one to it."""
    old = next((old for old in before.rows if old.claim == row.claim and old.kind == row.kind), None)
    if old is None or not old.value:
        return ""
    changed = f" (now {row.value / old.value:.2f} ×)" if row.value is not None else ""
    return f"{figures.figure(old.value, old.kind)}{changed}"


def _print_plain(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for cells in (heads, tuple("-" * width for width in widths), *lines):
        claim, *rest = cells
        padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([claim.ljust(widths[0]), *padded]))


def _print_rich(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    styles = {"reached": "green", "missed": "bold red", "not measured": "yellow"}
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column, head in enumerate(heads):
        table.add_column(head, justify="left" if column == 0 else "right", no_wrap=column > 0)
    for cells in lines:
        table.add_row(*cells, style=styles.get(cells[6]) if cells[6] != "reached" else None)
    console = Console()
    # A pipe has no width: use one that fits every column.
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
