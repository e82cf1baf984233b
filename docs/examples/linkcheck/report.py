"""The report: its values, and their JSON and Markdown, without I/O."""

import json
from collections import Counter
from typing import Literal

from pydantic import BaseModel

Verdict = Literal["ok", "broken", "outside", "skipped"]
"""`outside`: not granted. `skipped`: over the limit of links, or not a link to check."""

VERDICTS: tuple[Verdict, ...] = ("ok", "broken", "outside", "skipped")
_SHOWN = 50


class Link(BaseModel):
    """One address, the pages that contain it, and its verdict."""

    address: str
    verdict: Verdict
    detail: str
    pages: list[str]


class Report:
    """The report of a folder. Keeps the counts and the links of the summary; the caller writes the lines."""

    def __init__(self, folder: str, pages: int, unreadable: dict[str, str]) -> None:
        self.folder = folder
        self.pages = pages
        self.unreadable = unreadable
        self.counts: Counter[Verdict] = Counter()
        self.shown: dict[Verdict, list[Link]] = {"broken": [], "outside": []}

    @property
    def links(self) -> int:
        """The number of links added so far."""
        return self.counts.total()

    def begin(self) -> str:
        """Returns the JSON before the links."""
        head = {"folder": self.folder, "pages": self.pages, "unreadable": self.unreadable}
        return f'{json.dumps(head)[:-1]}, "links": ['

    def add(self, link: Link) -> str:
        """Counts a link and returns its JSON line."""
        comma = "," if self.counts else ""
        self.counts[link.verdict] += 1
        shown = self.shown.get(link.verdict)
        if shown is not None and len(shown) < _SHOWN:
            shown.append(link)
        return f"{comma}\n{link.model_dump_json()}"

    def end(self) -> str:
        """Returns the JSON after the links."""
        return "\n]}\n"


class Summary(BaseModel):
    """The result of a call: the counts, and the paths of the full reports below `$DATA`."""

    folder: str
    pages: int
    unreadable: int
    links: int
    ok: int
    broken: int
    outside: int
    skipped: int
    reports: list[str]


def summary(report: Report, reports: list[str]) -> Summary:
    """Returns the counts of a report."""
    return Summary(
        folder=report.folder,
        pages=report.pages,
        unreadable=len(report.unreadable),
        links=report.links,
        reports=reports,
        **{verdict: report.counts[verdict] for verdict in VERDICTS},
    )


def markdown(report: Report) -> str:
    """Returns the report as Markdown: the counts, then the links that need attention."""
    counts = report.counts
    lines = [f"# Links in {report.folder}", "", f"{report.pages} pages, {report.links} links.", ""]
    lines += ["| verdict | links |", "|---|---|", *(f"| {verdict} | {counts[verdict]} |" for verdict in VERDICTS), ""]
    for verdict, shown in report.shown.items():
        if shown:
            more = counts[verdict] - len(shown)
            lines += [f"## {verdict}", "", *(_line(link) for link in shown)]
            lines += [f"- and {more} more in report.json"] if more else []
            lines.append("")
    if report.unreadable:
        lines += ["## Unreadable pages", ""]
        lines += [f"- `{page}`: {reason}" for page, reason in report.unreadable.items()]
        lines.append("")
    return "\n".join(lines)


def _line(link: Link) -> str:
    more = f" and {len(link.pages) - 1} more pages" if len(link.pages) > 1 else ""
    return f"- `{link.address}`: {link.detail} (on `{link.pages[0]}`{more})"
