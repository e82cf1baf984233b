"""The path of a URL: normalised once, and matched against patterns in time linear in the path."""

import re
from dataclasses import dataclass
from functools import cached_property

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
# Neither unreserved nor a delimiter of a path (RFC 3986, section 3.3): parsers disagree whether to escape these.
_UNSAFE = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]")
_DELIMITERS = frozenset(b"!$&'()+,;=:@")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CLEAN = re.compile(r"(?:/(?!\.{0,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?")
_SLASHES = re.compile("//+")
_ENCODED_SEPARATOR = re.compile(r"%(?:2[Ff]|5[Cc])|\\")

MAX_PATH_LENGTH = 8192
"""Characters of a path; a longer one is refused (RFC 9110, section 4.1 asks servers to support 8000)."""


def normalise_path(path: str) -> str:
    """Returns an ASCII path in one spelling.

    Decodes escapes of unreserved characters, writes other escapes in upper case, escapes characters that a path must
    not contain, and then removes dot segments. The order matters: `%2e%2e` is a dot segment (RFC 3986, sections 6.2.2
    and 5.2.4). Keeps empty segments and encoded slashes.
    """
    if path == "/" or _CLEAN.fullmatch(path):
        return path
    decoded = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", _ESCAPE.sub(_decode_unreserved, path))
    kept: list[str] = []
    segments = decoded.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def has_encoded_separator(path: str) -> bool:
    """Returns whether a server may see more separators in `path` than we do (`%2F`, `%5C`, a backslash)."""
    return _ENCODED_SEPARATOR.search(path) is not None


def lenient_path(path: str) -> str:
    """Returns a normalised path as a lenient server may read it: delimiters unescaped, repeated slashes merged."""
    return _SLASHES.sub("/", _ESCAPE.sub(_decode_delimiter, path))


def has_broken_escape(path: str) -> bool:
    """Returns whether some percent sign is not followed by two hexadecimal digits."""
    return _BROKEN_ESCAPE.search(path) is not None


@dataclass(frozen=True)
class PathPattern:
    """A path with `*` (within a segment) and `**` (across segments); other characters match themselves."""

    text: str

    @cached_property
    def lenient(self) -> "PathPattern":
        """The pattern for a `lenient_path`."""
        return PathPattern(_ESCAPE.sub(_decode_delimiter, self.text))

    @cached_property
    def literal(self) -> str:
        """The text before the first wildcard."""
        return self.text.partition("*")[0]

    @cached_property
    def exact(self) -> bool:
        """Whether the pattern has no wildcard."""
        return "*" not in self.text

    @cached_property
    def subtree(self) -> bool:
        """Whether the pattern is a literal followed by one final `**`."""
        return self.text == self.literal + "**"

    def matches(self, path: str) -> bool:
        """Returns whether a normalised path matches, in time linear in `path` for every pattern."""
        if self.exact:
            return path == self.text
        if self.subtree:
            return path.startswith(self.literal)
        return path.startswith(self.literal) and self._simulate(path)

    @cached_property
    def _program(self) -> tuple[dict[str, int], int, int, int]:
        """Bit i of each mask is position i of the pattern: (masks by character, `*`, `**`, accepting position)."""
        parts = re.findall(r"\*\*+|\*|[^*]", self.text)
        masks: dict[str, int] = {}
        star = double = 0
        for position, part in enumerate(parts):
            if part == "*":
                star |= 1 << position
            elif part[0] == "*":
                double |= 1 << position
            else:
                masks[part] = masks.get(part, 0) | 1 << position
        return masks, star, double, 1 << len(parts)

    def _simulate(self, path: str) -> bool:
        # Tracks all positions at once as bits of one integer. There is no backtracking, so a pattern in a plugin's
        # manifest can't make a check slow.
        masks, star, double, accept = self._program
        wild = star | double
        states = 1 | (1 & wild) << 1
        for character in path:
            stay = states & (double if character == "/" else wild)
            states = (states & masks.get(character, 0)) << 1 | stay
            # A wildcard may match the empty text. A pattern never has two in a row, so one step closes the set.
            states |= (states & wild) << 1
            if not states:
                return False
        return bool(states & accept)


def _decode_unreserved(match: re.Match[str]) -> str:
    byte = int(match[1], 16)
    return chr(byte) if byte in _UNRESERVED else match[0].upper()


def _decode_delimiter(match: re.Match[str]) -> str:
    byte = int(match[1], 16)
    return chr(byte) if byte in _DELIMITERS else match[0]
