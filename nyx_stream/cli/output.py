"""What the commands print, and how. Text of a plugin or a peer is escaped before it comes here or on the way.

Nothing goes through rich's markup: a rule such as `[::1]:8080` would be taken for a style.
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
"""Columns for a reader that is no terminal: it wraps, or does not, by itself."""

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


def say(text: str) -> None:
    """Prints lines of our own text to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Prints an error to stderr, after the name of the command."""
    sys.stderr.write(f"nyx: {text}\n")
    sys.stderr.flush()


def say_json(value: object, *, compact: bool = False) -> None:
    """Prints one JSON document; `compact` on one line.

    Bytes are printed as base64, numbers that JSON does not have as `null`, objects of no known kind as their `repr`.
    """
    plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", serialize_unknown=True)
    separators = (",", ":") if compact else None
    document = json.dumps(plain, ensure_ascii=False, indent=None if compact else 2, separators=separators)
    # What could forge or hide output becomes an escape of JSON, so that a program reads it back unchanged.
    say("".join(map(_json_visible, document)) if not document.isascii() or "\x7f" in document else document)


def _json_visible(character: str) -> str:
    return character if character == "\n" or escape(character) == character else json.dumps(character)[1:-1]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under column heads; a cell that is a verdict has its colour where stdout is a terminal."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(escape(cell), style=_STYLES.get(cell, "")) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)
    with console.capture() as capture:
        console.print(grid)
    # rich pads the last column; a line that ends in white space cannot be compared or pasted.
    say("\n".join(line.rstrip() for line in capture.get().splitlines()))
