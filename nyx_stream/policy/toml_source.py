"""The positions of keys and values in a TOML text, for error messages; `tomllib` does not report them.

The scanner reads tables, dotted keys, inline tables and arrays over several lines. Values always come from `tomllib`:
where the scanner misses a key, an error message merely lacks its line.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator

from nyx_stream.errors import PolicyError, Problem

Key = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>\"\"\"(?:\\.|[^\\])*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
      | (?P<mark>[\[\]{}=,.])
      | (?P<bare>[^\s\[\]{}=,."'\#]+)""",
    re.VERBOSE | re.DOTALL,
)
_POSITION = re.compile(
    r"^(?P<message>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL
)


class TomlSource:
    """A parsed TOML file and the positions of its keys and array items.

    Raises `error` for a text that is not valid TOML.
    """

    def __init__(self, name: str, text: str, error: type[PolicyError] = PolicyError) -> None:
        self.name = name
        self.text = text
        try:
            self.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as fault:
            raise error([_syntax_problem(name, text, fault)]) from None
        self._positions = dict(_Scanner(text).positions())
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def line(self, key: Key) -> int | None:
        """Returns the line of `key`, from 1, or of its closest parent whose position is known."""
        position = self._position(key)
        return None if position is None else bisect_right(self._lines, position)

    def problem(self, key: Key, message: str, offset: int | None = None) -> Problem:
        """Returns a problem at `key`; `offset` is the index of the fault inside a string value."""
        position = self._position(key)
        if position is None:
            return Problem(message, where=self.name)
        line = bisect_right(self._lines, position)
        start = self._lines[line - 1]
        column = position - start + (1 + offset if key in self._positions and offset is not None else 0)
        return Problem(message, self.name, line, self.text[start:].partition("\n")[0].rstrip(), column)

    def _position(self, key: Key) -> int | None:
        parents = (key[:length] for length in range(len(key), 0, -1))
        return next((self._positions[parent] for parent in parents if parent in self._positions), None)


def _syntax_problem(name: str, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    match = _POSITION.match(str(error))
    if match is None:
        return Problem(f"not TOML: {error}", where=name)
    lines = text.split("\n")
    line = int(match["line"] or len(lines))
    column = int(match["column"] or len(lines[-1]) + 1)
    # The last line of a document may be empty.
    excerpt = lines[line - 1].rstrip() or None
    return Problem(f"not TOML: {match['message']}", name, line, excerpt, column - 1)


class _Scanner:
    """Walks over the tokens of a valid TOML text; `positions` yields the index of every key and array item."""

    def __init__(self, text: str) -> None:
        self._tokens = [m for m in _TOKEN.finditer(text) if m.lastgroup != "space"]
        self._next = 0
        self._tables: dict[Key, int] = {}

    def positions(self) -> Iterator[tuple[Key, int]]:
        table: Key = ()
        while (token := self._peek()) is not None:
            if self._at("\n"):
                continue
            if token.group() == "[":
                table = self._header()
                yield table, token.start()
            else:
                yield from self._pair(table)

    def _header(self) -> Key:
        array = 0
        while self._at("["):
            array += 1
        names = self._names()
        while self._at("]"):
            pass
        if array == 2:
            self._tables[names] = self._tables.get(names, -1) + 1
        # A header below an array of tables refers to its latest item.
        key: Key = ()
        for name in names:
            key = (*key, name)
            plain = tuple(part for part in key if isinstance(part, str))
            if plain in self._tables:
                key = (*key, self._tables[plain])
        return key

    def _pair(self, table: Key) -> Iterator[tuple[Key, int]]:
        token = self._peek()
        key = (*table, *self._names())
        if token is None or not self._at("="):
            self._next += 1
            return
        yield from self._value(key, token.start())

    def _value(self, key: Key, named: int | None) -> Iterator[tuple[Key, int]]:
        token = self._peek()
        if token is None:
            return
        simple = token.group() not in ("[", "{")
        yield key, (token.start() if named is None or simple else named)
        if self._at("["):
            yield from self._array(key)
        elif self._at("{"):
            while not self._at("}") and self._peek() is not None:
                if not self._at(",", "\n"):
                    yield from self._pair(key)
        else:
            # A number or a date may be several tokens: 1.5, 07:30:00.
            self._next += 1
            while (more := self._peek()) is not None and (more.group() == "." or more.lastgroup == "bare"):
                self._next += 1

    def _array(self, key: Key) -> Iterator[tuple[Key, int]]:
        index = 0
        while not self._at("]") and self._peek() is not None:
            if not self._at(",", "\n"):
                yield from self._value((*key, index), None)
                index += 1

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        while (token := self._peek()) is not None and token.lastgroup in ("bare", "string"):
            names.append(token.group().strip("\"'"))
            self._next += 1
            if not self._at("."):
                break
        return tuple(names)

    def _peek(self) -> re.Match[str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _at(self, *marks: str) -> bool:
        """Skips the next token if it is one of `marks`; returns whether it was."""
        token = self._peek()
        found = token is not None and token.group() in marks
        self._next += found
        return found
