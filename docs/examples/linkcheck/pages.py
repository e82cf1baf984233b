"""Finds the links of one HTML or Markdown page, without I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

HTML = (".html", ".htm", ".xhtml")
MARKDOWN = (".md", ".markdown")

# HTML attributes that contain a URL (HTML Living Standard, "Attributes" index, type "Valid URL").
_ATTRIBUTES = {
    "a": "href",
    "area": "href",
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
    "video": "src",
}
# Inline links and images, reference definitions, and autolinks (CommonMark 0.31, sections 6.3, 4.7 and 6.5).
_INLINE = re.compile(r"!?\[[^\]\n]{0,500}\]\(\s*<?((?:[^\s<>()]|\([^\s<>()]*\))+)>?(?:\s+[\"'(][^\n]{0,300})?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,300}\]:\s*<?([^\s<>]+)>?", re.MULTILINE)
_AUTOLINK = re.compile(r"<(https?://[^\s<>]+)>")
_CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<tick>`+)[^`]+(?P=tick)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page below the checked folder, and its links. `base` is the address in its `<base>` element."""

    path: str
    links: tuple[str, ...]
    base: str | None = None


def read_page(path: str, text: str) -> Page:
    """Parses a page. The links are as written, without duplicates, in order."""
    if path.lower().endswith(MARKDOWN):
        return Page(path, tuple(dict.fromkeys(_markdown(text))))
    parsed = _parsed(text)
    return Page(path, tuple(dict.fromkeys(parsed.found)), parsed.base)


def resolve(page: Page, address: str) -> tuple[str, str]:
    """Returns (kind, target) of an address on `page`.

    `remote` is an absolute URL without its fragment, `local` a path below the folder. `other` isn't a link to check: an
    anchor in the page, a mail address, a script, data, or a path out of the folder. `broken` isn't a valid address.
    """
    try:
        url = urldefrag(urljoin(page.base or "", address)).url
        parts = urlsplit(url)
    except ValueError:
        return "broken", address
    if parts.netloc and not parts.scheme:
        return "remote", f"https:{url}"
    if parts.scheme in ("http", "https"):
        return ("remote", url) if parts.netloc else ("broken", address)
    if parts.scheme:
        return "other", address
    if not parts.path:
        return "other", address
    path = _below(page.path, unquote(parts.path))
    return ("other", address) if path is None else ("local", path)


def _below(page: str, path: str) -> str | None:
    names = [] if path.startswith("/") else page.split("/")[:-1]
    for name in path.split("/"):
        if name == "..":
            if not names:
                return None
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return "/".join(names) or "."


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "base" and self.base is None:
            self.base = values.get("href")
        address = values.get(_ATTRIBUTES.get(tag, ""))
        # `preconnect` and similar relations name an origin, not a page.
        if address and not (tag == "link" and "connect" in (values.get("rel") or "")):
            self.found.append(address.strip())


def _parsed(text: str) -> _Links:
    parser = _Links()
    parser.feed(text)
    parser.close()
    return parser


def _markdown(text: str) -> Iterator[str]:
    prose = _CODE.sub("", text)
    for pattern in (_INLINE, _REFERENCE, _AUTOLINK):
        yield from (unescape(match[1]) for match in pattern.finditer(prose))
    yield from _parsed(prose).found
