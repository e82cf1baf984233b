"""Draws charts with logarithmic axes as SVG text."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks import figures
from benchmarks.measure import Growth, Measure, Row

_WIDTH = 900
_BAR = 15
_LABELS = 400
_LETTERS = 58
_MARKS = ("circle", "square", "triangle", "diamond")


_APART = 70
"""Minimum distance between two labels of an axis."""


class Scale:
    """Maps values to positions on a logarithmic axis from `start` to `end`, in whole decades that contain all values.

    With `tight` the axis begins and ends with the values.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, *, tight: bool = False) -> None:
        logs = [math.log10(value) for value in values if value > 0]
        low, high = min(logs), max(logs)
        self._low = low if tight else math.floor(low + 1e-9)
        self._high = high if tight and high > low else max(math.ceil(high - 1e-9), self._low + 1)
        self._start = start
        self._step = (end - start) / (self._high - self._low)

    def position(self, value: float) -> float:
        return self._start + (math.log10(value) - self._low) * self._step if value > 0 else self._start

    @property
    def decades(self) -> list[float]:
        return [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]


def bars(rows: Sequence[Row]) -> str:
    """Returns a chart of guarded costs, each above its baseline, with the quartiles as whiskers."""
    shown = [row for row in rows if row.guarded is not None]
    if not shown:
        return ""
    unit = shown[0].guarded.unit if shown[0].guarded is not None else "s"
    measures = [m for row in shown for m in (row.guarded, row.baseline) if m is not None and m.unit == unit]
    scale = Scale([value for m in measures for value in (m.median, *m.quartiles)], _LABELS, _WIDTH - 80)
    parts: list[str] = []
    top = 6.0
    for row in shown:
        parts.append(_label(0, top + 12, row.claim, "label"))
        if row.baseline is not None:
            parts.append(_label(0, top + 29, row.baseline.name, "faint"))
        for measure, kind in ((row.guarded, "guarded"), (row.baseline, "baseline")):
            if measure is None:
                continue
            if measure.unit == unit:
                parts.append(_bar(measure, kind, scale, top))
            else:  # this unit has no axis: show the value as text
                parts.append(_text(_LABELS + 5, top + 12, figures.amount(measure.median, measure.unit), "value"))
            top += _BAR + 2
        top += 8
    grid = _grid_down(scale, unit, top)
    return _svg(_WIDTH, top + 24, [*grid, *parts], "cost of each, guarded next to its baseline")


def lines(growth: Growth) -> str:
    """Returns a chart of curves, both axes logarithmic, with the quartiles as a band."""
    left, right, bottom = 70.0, _WIDTH - 40.0, 300.0
    points = [(x, m) for series in growth.series for x, m in series.points]
    if not points:
        return ""
    unit = points[0][1].unit
    xs = sorted({max(x, 1.0) for x, _ in points})
    across = Scale(xs, left, right, tight=True)
    up = Scale([value for _, m in points for value in (m.median, *m.quartiles)], bottom, 10)
    parts = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{up.position(v):.1f}" y2="{up.position(v):.1f}"/>'
        + _text(left - 8, up.position(v) + 4, figures.amount(v, unit), "tick end")
        for v in up.decades
    ]
    free = 0.0
    for x in xs:
        if (at := across.position(x)) >= free:
            parts.append(_text(at, bottom + 18, _count(x, growth.x_label), "tick middle"))
            free = at + _APART
    parts.append(_text((left + right) / 2, bottom + 38, growth.x_label, "tick middle"))
    top = bottom + 62
    last = len(growth.series) - 1
    for number, series in enumerate(growth.series):
        kind = "cb" if number == last > 0 else f"c{number}"
        parts.append(_curve(number, kind, [(across.position(max(x, 1)), m) for x, m in series.points], up))
        parts.append(_mark(number, kind, left + 6, top - 4) + _text(left + 18, top, series.name, "label"))
        top += 18
    return _svg(_WIDTH, top, parts, growth.title)


def outcomes(rows: Sequence[Row]) -> str:
    """Returns a chart of each row's distance from its target; left of the line is better."""
    shown = [row for row in rows if row.value and row.target is not None]
    if not shown:
        return ""
    shares = [_share(row) for row in shown]
    scale = Scale([0.1, 10, *shares], _LABELS, _WIDTH - 120)
    height = 20 * len(shown) + 8
    one = scale.position(1)
    parts = [
        f'<line class="grid" x1="{scale.position(v):.1f}" x2="{scale.position(v):.1f}" y1="0" y2="{height}"/>'
        + _text(scale.position(v), height + 16, f"{v:g} × target", "tick middle")
        for v in scale.decades
    ]
    parts.append(f'<line class="target" x1="{one:.1f}" x2="{one:.1f}" y1="0" y2="{height}"/>')
    for number, (row, share) in enumerate(zip(shown, shares, strict=True)):
        y = 20 * number + 14
        kind = "reached" if row.reached else "missed"
        parts.append(_label(0, y + 4, row.claim, "label"))
        parts.append(f'<line class="{kind}" x1="{one:.1f}" x2="{scale.position(share):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{scale.position(share):.1f}" cy="{y}" r="5"/>')
        figure = figures.figure(row.value or 0, row.kind)
        parts.append(_text(_WIDTH, y + 4, figure, "value end"))
    return _svg(_WIDTH, height + 24, parts, "every figure as a share of its target")


def _share(row: Row) -> float:
    if row.target is None or not row.value:
        return 1.0
    return row.target.bound / row.value if row.target.at_least else row.value / row.target.bound


def _bar(measure: Measure, kind: str, scale: Scale, top: float) -> str:
    left, end = _LABELS, scale.position(measure.median)
    low, high = (scale.position(value) for value in measure.quartiles)
    middle = top + _BAR / 2
    return (
        f'<rect class="{kind}" x="{left}" y="{top:.1f}" width="{max(end - left, 1):.1f}" height="{_BAR}">'
        f"<title>{escape(measure.name)}</title></rect>"
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        + _text(max(end, high) + 5, top + 12, figures.amount(measure.median, measure.unit), "value")
    )


def _grid_down(scale: Scale, unit: str, bottom: float) -> list[str]:
    return [
        f'<line class="grid" x1="{scale.position(v):.1f}" x2="{scale.position(v):.1f}" y1="0" y2="{bottom:.1f}"/>'
        + _text(scale.position(v), bottom + 16, figures.amount(v, unit), "tick middle")
        for v in scale.decades
    ]


def _curve(number: int, kind: str, points: Sequence[tuple[float, Measure]], up: Scale) -> str:
    line = " ".join(f"{x:.1f},{up.position(m.median):.1f}" for x, m in points)
    upper = [f"{x:.1f},{up.position(m.quartiles[1]):.1f}" for x, m in points]
    lower = [f"{x:.1f},{up.position(m.quartiles[0]):.1f}" for x, m in reversed(points)]
    marks = "".join(_mark(number, kind, x, up.position(m.median), f"{m.median:.3g}") for x, m in points)
    return (
        f'<polygon class="band {kind}" points="{" ".join(upper + lower)}"/>'
        f'<polyline class="curve {kind}" points="{line}"/>{marks}'
    )


def _mark(number: int, kind: str, x: float, y: float, title: str = "") -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    match _MARKS[number % len(_MARKS)]:
        case "circle":
            return f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{tip}</circle>'
        case "square":
            return f'<rect class="mark {kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">{tip}</rect>'
        case "triangle":
            corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y + 4:.1f} {x - 5:.1f},{y + 4:.1f}"
        case _:
            corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    return f'<polygon class="mark {kind}" points="{corners}">{tip}</polygon>'


def _count(value: float, unit: str) -> str:
    return figures.amount(value, "B") if unit == "bytes" else f"{value:,.0f}"


def _label(x: float, y: float, text: str, kind: str) -> str:
    if len(text) <= _LETTERS:
        return _text(x, y, text, kind)
    cut = f"{text[: _LETTERS - 1]}…"
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(cut)}<title>{escape(text)}</title></text>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
