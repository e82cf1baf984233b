"""What was found, as values, as JSON and as Markdown. Pure."""

import json
from collections import Counter
from typing import Literal

from pydantic import BaseModel

Verdict = Literal["ok", "broken", "outside", "skipped"]
"""`outside`: the sandbox does not grant it. `skipped`: over the limit of links, or no link to check."""

VERDICTS: tuple[Verdict, ...] = ("ok", "broken", "outside", "skipped")
_SHOWN = 50


class Link(BaseModel):
    """One address, the pages it stands on, and what became of it."""

    address: str
    verdict: Verdict
    detail: str
    pages: list[str]


class Report:
    """What was found in a folder. Its links are written out as they are found; counts and those that are shown stay."""

    def __init__(self, folder: str, pages: int, unreadable: dict[str, str]) -> None:
        self.folder = folder
        self.pages = pages
        self.unreadable = unreadable
        self.counts: Counter[Verdict] = Counter()
        self.shown: dict[Verdict, list[Link]] = {"broken": [], "outside": []}

    @property
    def links(self) -> int:
        """How many there were."""
        return self.counts.total()

    def begin(self) -> str:
        """The JSON of the report up to its links."""
        head = {"folder": self.folder, "pages": self.pages, "unreadable": self.unreadable}
        return f'{json.dumps(head)[:-1]}, "links": ['

    def add(self, link: Link) -> str:
        """Counts a link; returns its line."""
        comma = "," if self.counts else ""
        self.counts[link.verdict] += 1
        shown = self.shown.get(link.verdict)
        if shown is not None and len(shown) < _SHOWN:
            shown.append(link)
        return f"{comma}\n{link.model_dump_json()}"

    def end(self) -> str:
        """The JSON of the report after its links."""
        return "\n]}\n"


class Summary(BaseModel):
    """What a call returns: the counts, and where the whole report is, below `$DATA`."""

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
    """Returns a report for people: the counts, then the links that need someone."""
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
        lines += ["## Pages that could not be read", ""]
        lines += [f"- `{page}`: {reason}" for page, reason in report.unreadable.items()]
        lines.append("")
    return "\n".join(lines)


def _line(link: Link) -> str:
    more = f" and {len(link.pages) - 1} more pages" if len(link.pages) > 1 else ""
    return f"- `{link.address}`: {link.detail} (on `{link.pages[0]}`{more})"
