"""Builds the report: one HTML file without scripts or external resources."""

import re
from html import escape

from benchmarks import figures, svg
from benchmarks.measure import Row
from benchmarks.session import Report, Section
from benchmarks.table import cells_of, heads_of, peers, summary

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --faint: #5c6773; --line: #d9dee4; --page: #ffffff; --panel: #f6f8fa;
  --guarded: #1f6feb; --baseline: #9aa5b1; --good: #1a7f37; --bad: #c9302c;
  --c0: #1f6feb; --c1: #d9730d; --c2: #b8860b; --c3: #8e44ad; --c4: #0f8b8d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9aa5b1; --line: #30363d; --page: #0d1117;
  --panel: #161b22; --guarded: #4493f8; --baseline: #6e7681; --good: #3fb950; --bad: #f85149;
  --c0: #4493f8; --c1: #f0883e; --c2: #d4a72c; --c3: #c297ff; --c4: #39c5cf; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1080px;
  margin: 2rem auto; padding: 0 1.5rem; }
h1 { margin-bottom: .2rem } h2 { margin-top: 2.6rem; border-top: 1px solid var(--line); padding-top: 1.2rem }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem } .faint { color: var(--faint) }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; white-space: normal }
td.part { text-align: left; padding-top: 1.1rem; font-weight: 600 } td.part a { color: inherit }
td.why { text-align: left; white-space: normal; color: var(--faint); border-bottom: 1px solid var(--line);
  padding-left: 1.6rem; font-size: 13px }
td.head, b.figure { font-weight: 600 } .reached { color: var(--good) } .missed { color: var(--bad) }
.not-measured { color: var(--faint) }
svg { width: 100%; height: auto; background: var(--panel); border-radius: 6px; padding: 12px;
  box-sizing: border-box }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } svg text.tick, svg text.faint { fill: var(--faint) }
svg .middle { text-anchor: middle } svg .end { text-anchor: end } svg .value { font-variant-numeric: tabular-nums }
svg .grid { stroke: var(--line); stroke-width: 1 } svg .target { stroke: var(--ink); stroke-width: 1.5 }
svg rect.guarded { fill: var(--guarded) } svg rect.baseline { fill: var(--baseline) }
svg .whisker { stroke: var(--ink); stroke-width: 1.5 }
svg circle.reached { fill: var(--good) } svg circle.missed { fill: var(--bad) }
svg line.reached { stroke: var(--good); stroke-width: 3 } svg line.missed { stroke: var(--bad); stroke-width: 3 }
svg .curve { fill: none; stroke-width: 2 } svg .band { opacity: .15; stroke: none }
svg .c0 { stroke: var(--c0); fill: var(--c0) } svg .c1 { stroke: var(--c1); fill: var(--c1) }
svg .c4 { stroke: var(--c4); fill: var(--c4) } svg .curve.c4 { fill: none }
svg .cb { stroke: var(--baseline); fill: var(--baseline) } svg .curve.cb { fill: none }
svg .c2 { stroke: var(--c2); fill: var(--c2) } svg .c3 { stroke: var(--c3); fill: var(--c3) }
svg .curve.c0, svg .curve.c1, svg .curve.c2, svg .curve.c3 { fill: none }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; border-radius: 2px }
pre { background: var(--panel); padding: .8rem; overflow-x: auto }
"""

_CODE = re.compile("`([^`]+)`")
_EXPLANATION = (
    "N is the time of an empty Python function call. Guarded and baseline costs were timed in the same rounds, and a "
    "ratio is taken within its round. A figure is the median over the rounds; the spread is half the distance between "
    "the quartiles. Axes are logarithmic."
)


def to_html(report: Report, before: Report | None = None) -> str:
    """Returns the report as one HTML document."""
    key = (
        '<p class="key faint"><i style="background:var(--guarded)"></i>guarded'
        '<i style="background:var(--baseline)"></i>baseline, from the same rounds</p>'
    )
    body = [
        "<h1>What safety costs</h1>",
        f'<p class="faint">{escape(" · ".join(report.machine.values()))}{" · quick run" if report.quick else ""}</p>',
        f"<p>{escape(summary(report))}, in {report.seconds:.0f} s. Peers: {escape(peers(report))}.</p>",
        f'<p class="faint">{escape(_EXPLANATION)}</p>',
        _table(report, before),
        "<h3>Distance from the target: left of the line is better</h3>",
        svg.outcomes(report.rows),
        *(_section(section, key) for section in report.sections),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Nyx benchmarks</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _section(section: Section, key: str) -> str:
    charts = svg.bars(section.rows)
    about = _CODE.sub(r"<code>\1</code>", escape(section.about))
    parts = [
        f'<h2 id="{escape(section.name)}">{escape(section.name)}</h2>',
        f"<p>{about}</p>",
    ]
    parts += [charts, key] if charts else []
    for growth in section.growths:
        parts += [f"<h3>{escape(growth.title)}</h3>", svg.lines(growth)]
    if section.failure:
        parts.append(f'<p class="missed">It failed:</p><pre>{escape(section.failure)}</pre>')
    return "\n".join(parts)


def _table(report: Report, before: Report | None) -> str:
    heads = heads_of(before)
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    for section in report.sections:
        link = f'<a href="#{escape(section.name)}">{escape(section.name)}</a>'
        lines.append(f'<tr><td class="part" colspan="{len(heads)}">{link}</td></tr>')
        lines += _lines(section.rows, len(heads), before)
    return f"<table>{''.join(lines)}</table>"


def _lines(rows: tuple[Row, ...], columns: int, before: Report | None) -> list[str]:
    lines: list[str] = []
    for row in rows:
        outcome = figures.outcome(row)
        kinds = ["", "", "", "head", "", "", outcome.replace(" ", "-"), ""]
        cells = zip(kinds, cells_of(row, before), strict=False)
        lines.append(f"<tr>{''.join(_cell(kind, cell) for kind, cell in cells)}</tr>")
        if row.remark:
            lines.append(f'<tr><td class="why" colspan="{columns}">{escape(row.remark)}</td></tr>')
    return lines


def _cell(kind: str, text: str) -> str:
    return f'<td class="{kind}">{escape(text)}</td>'
