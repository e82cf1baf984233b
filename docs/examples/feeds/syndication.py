"""Parses RSS 2.0, RSS 1.0 and Atom from untrusted bytes, without I/O.

A document type declaration is refused: it allows external entities and endlessly expanding entities (CWE-611, CWE-776),
and feeds don't need one.
"""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.parsers import expat

from pydantic import BaseModel

MAX_ENTRIES = 1000
_MAX_DEPTH = 64
_MAX_TEXT = 2000
"""Characters kept of a title, a link or an id."""

_ENTRIES = ("item", "entry")
_FIELDS = {
    "title": "title",
    "link": "link",
    "guid": "id",
    "id": "id",
    "pubDate": "date",
    "published": "date",
    "updated": "date",
    "date": "date",
}
_NAMESPACES = frozenset(
    {"", "http://www.w3.org/2005/Atom", "http://purl.org/rss/1.0/", "http://purl.org/dc/elements/1.1/"}
)
"""Namespaces whose elements are read; `media:title`, for example, is not the title."""


class FeedError(ValueError):
    """The document isn't a feed, or contains something that is refused."""


class Entry(BaseModel):
    """One entry. `id` falls back to the link; `date` is ISO 8601 in UTC."""

    id: str
    title: str
    link: str = ""
    date: str | None = None


class Feed(BaseModel):
    """A parsed feed."""

    title: str
    entries: list[Entry]


def read_feed(data: bytes) -> Feed:
    """Reads a feed. Raises `FeedError`."""
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FeedError(f"not XML: {error}") from None
    if not reader.is_feed:
        raise FeedError("neither RSS nor Atom")
    return Feed(title=reader.title, entries=reader.entries)


class _Reader:
    """The expat handlers of one parse. They collect the text of entry fields and of the feed's title."""

    def __init__(self) -> None:
        self.title = ""
        self.entries: list[Entry] = []
        self.is_feed = False
        self._path: list[str] = []
        self._entry: dict[str, str] = {}
        self._field = ""
        self._depth = 0  # of the element whose text is collected; markup inside it (Atom's xhtml) is deeper
        self._text: list[str] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _refuse(self, *_: object) -> None:
        raise FeedError("a document type declaration is refused")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        parent = self._path[-1] if self._path else ""
        self._path.append(tag)
        if len(self._path) > _MAX_DEPTH:
            raise FeedError(f"nested more than {_MAX_DEPTH} deep")
        if not parent:
            self.is_feed = tag in ("rss", "feed", "RDF")
        elif space not in _NAMESPACES or self._depth:
            return
        elif parent in _ENTRIES and tag in _FIELDS:
            self._collect(_FIELDS[tag])
            # Atom stores links in attributes. If there are several, the alternate one is the entry's (RFC 4287, 4.2.7).
            if "href" in attributes and attributes.get("rel", "alternate") == "alternate":
                self._entry.setdefault("link", attributes["href"][:_MAX_TEXT])
        elif parent in ("channel", "feed") and tag == "title":
            self._collect("title of the feed")

    def _collect(self, field: str) -> None:
        self._field, self._depth, self._text = field, len(self._path), []

    def _characters(self, text: str) -> None:
        if self._depth and len(self._text) < _MAX_TEXT:
            self._text.append(text)

    def _end(self, _: str) -> None:
        if len(self._path) == self._depth:
            self._depth = 0
            text = " ".join("".join(self._text).split())[:_MAX_TEXT]
            if self._field == "title of the feed":
                self.title = self.title or text
            elif text:
                self._entry.setdefault(self._field, text)
        if self._path.pop() in _ENTRIES:
            self._keep(self._entry)
            self._entry = {}

    def _keep(self, found: dict[str, str]) -> None:
        identity = found.get("id") or found.get("link") or found.get("title")
        if identity and len(self.entries) < MAX_ENTRIES:
            title, link = found.get("title", identity), found.get("link", "")
            self.entries.append(Entry(id=identity, title=title, link=link, date=_iso(found.get("date", ""))))


def _iso(text: str) -> str | None:
    """Reads a date of RFC 5322 (RSS 2.0) or ISO 8601 (Atom, Dublin Core); `None` if it is neither."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        try:
            return date.astimezone(UTC).isoformat(timespec="seconds")
        except (OverflowError, ValueError):
            return None
    return None


def now() -> str:
    """Returns the current time in the format of `Entry.date`."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
