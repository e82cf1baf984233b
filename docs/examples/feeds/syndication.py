"""RSS 2.0, RSS 1.0 and Atom, read from bytes that nobody vouches for. Pure.

A document type declaration is refused: it is the door to external entities and to entities that expand without end
(CWE-611, CWE-776), and no feed format needs one.
"""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.parsers import expat

from pydantic import BaseModel

MOST_ENTRIES = 1000
_DEEPEST = 64
_LONGEST = 2000
"""Characters that are kept of a title, a link or an id."""

_ENTRY = ("item", "entry")
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
_OWN = frozenset({"", "http://www.w3.org/2005/Atom", "http://purl.org/rss/1.0/", "http://purl.org/dc/elements/1.1/"})
"""Name spaces whose elements count; `media:title` is not the title."""


class FeedError(ValueError):
    """The document is no feed, or one that is refused."""


class Entry(BaseModel):
    """One entry. `id` is the feed's own, or the link where it gives none; `date` is ISO 8601 in UTC."""

    id: str
    title: str
    link: str = ""
    date: str | None = None


class Feed(BaseModel):
    """A feed as it was read."""

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
    """Handlers of one parse."""

    def __init__(self) -> None:
        self.title = ""
        self.entries: list[Entry] = []
        self.is_feed = False
        self._path: list[str] = []
        self._entry: dict[str, str] | None = None
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
        self._path.append(tag)
        if len(self._path) > _DEEPEST:
            raise FeedError(f"nested more than {_DEEPEST} deep")
        if len(self._path) == 1:
            self.is_feed = tag in ("rss", "feed", "RDF")
        if tag in _ENTRY and self._entry is None:
            self._entry = {}
        # Atom has its links in attributes, and of several the alternate one is the entry's (RFC 4287, 4.2.7).
        elif tag == "link" and self._entry is not None and attributes.get("rel", "alternate") == "alternate":
            self._entry.setdefault("link", attributes.get("href", "")[:_LONGEST])
        self._text = [] if space in _OWN else ["\0"]

    def _characters(self, text: str) -> None:
        if self._text[:1] != ["\0"] and sum(map(len, self._text)) < _LONGEST:
            self._text.append(text)

    def _end(self, name: str) -> None:
        tag = self._path.pop()
        text = "" if self._text[:1] == ["\0"] else " ".join("".join(self._text).split())[:_LONGEST]
        self._text = []
        if self._entry is None:
            if tag == "title" and len(self._path) <= 2 and not self.title:
                self.title = text
            return
        if tag in _ENTRY:
            self._keep(self._entry)
            self._entry = None
        elif self._path[-1:] and self._path[-1] in _ENTRY and tag in _FIELDS and text:
            field = _FIELDS[tag]
            if not self._entry.get(field):
                self._entry[field] = text
        del name

    def _keep(self, found: dict[str, str]) -> None:
        identity = found.get("id") or found.get("link") or found.get("title")
        if identity and len(self.entries) < MOST_ENTRIES:
            title, link = found.get("title", identity), found.get("link", "")
            self.entries.append(Entry(id=identity, title=title, link=link, date=_iso(found.get("date", ""))))


def _iso(text: str) -> str | None:
    """Reads a date of RFC 5322 (RSS 2.0) or ISO 8601 (Atom, Dublin Core); `None` where it is neither."""
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
    """Returns the present time as the entries give theirs."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
