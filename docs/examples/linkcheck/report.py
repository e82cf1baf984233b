"""What was found, as values, as JSON and as Markdown. Pure."""

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


class Report(BaseModel):
    """Everything that was found in a folder."""

    folder: str
    pages: int
    unreadable: dict[str, str]
    links: list[Link]


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
    counts = Counter(link.verdict for link in report.links)
    return Summary(
        folder=report.folder,
        pages=report.pages,
        unreadable=len(report.unreadable),
        links=len(report.links),
        reports=reports,
        **{verdict: counts[verdict] for verdict in VERDICTS},
    )


def markdown(report: Report) -> str:
    """Returns a report for people: the counts, then the links that need someone."""
    counts = Counter(link.verdict for link in report.links)
    lines = [f"# Links in {report.folder}", "", f"{report.pages} pages, {len(report.links)} links.", ""]
    lines += ["| verdict | links |", "|---|---|", *(f"| {verdict} | {counts[verdict]} |" for verdict in VERDICTS), ""]
    for verdict in ("broken", "outside"):
        chosen = [link for link in report.links if link.verdict == verdict]
        if chosen:
            lines += [f"## {verdict}", "", *(_line(link) for link in chosen[:_SHOWN])]
            lines += [f"- and {len(chosen) - _SHOWN} more in report.json"] if len(chosen) > _SHOWN else []
            lines.append("")
    if report.unreadable:
        lines += ["## Pages that could not be read", ""]
        lines += [f"- `{page}`: {reason}" for page, reason in report.unreadable.items()]
        lines.append("")
    return "\n".join(lines)


def _line(link: Link) -> str:
    more = f" and {len(link.pages) - 1} more pages" if len(link.pages) > 1 else ""
    return f"- `{link.address}`: {link.detail} (on `{link.pages[0]}`{more})"
