"""Prints what the commands output. Callers escape text that came from a plugin or a peer; tables and JSON do it here.

Nothing is printed as rich markup: a rule such as `[::1]:8080` would be parsed as a style.
"""

import json
import sys
from collections.abc import Iterable, Sequence

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nyx_stream.text import escape

_PIPED_WIDTH = 1000
"""Columns for output that isn't a terminal, so that lines aren't wrapped."""

_STYLES = {
    "allowed": "green",
    "granted": "green",
    "ok": "green",
    "partly": "yellow",
    "warning": "yellow",
    "denied": "red",
    "refused": "red",
    "error": "red",
}


def print_text(text: str) -> None:
    """Prints lines of text to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Prints an error to stderr, after the name of the command."""
    sys.stderr.write(f"nyx: {text}\n")
    sys.stderr.flush()


def print_json(value: object, *, compact: bool = False) -> None:
    """Prints one JSON document, on one line if `compact`.

    Bytes are printed as base64, numbers that JSON doesn't have as `null`, and objects of unknown types as their `repr`.
    """
    plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", serialize_unknown=True)
    separators = (",", ":") if compact else None
    document = json.dumps(plain, ensure_ascii=False, indent=None if compact else 2, separators=separators)
    # Characters that could forge or hide output become JSON escapes, so that a program reads them back unchanged.
    print_text("".join(map(_visible, document)) if not document.isascii() or "\x7f" in document else document)


def _visible(character: str) -> str:
    return character if character == "\n" or escape(character) == character else json.dumps(character)[1:-1]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under column heads. Verdicts are coloured if stdout is a terminal."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(escape(cell), style=_STYLES.get(cell, "")) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)
    with console.capture() as capture:
        console.print(grid)
    # rich pads the last column; trailing white space makes output hard to compare and paste.
    print_text("\n".join(line.rstrip() for line in capture.get().splitlines()))


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
