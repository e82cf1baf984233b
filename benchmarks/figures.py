"""Formats times, sizes and rates with three digits."""

from benchmarks.measure import Kind, Row, Target, quartiles

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_RATIOS = {"N": "N", "ratio": "×", "faster": "× as fast"}
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def amount(value: float, unit: str) -> str:
    """Formats `value` seconds or bytes, such as `103 ns` or `1.5 MiB`."""
    steps = _TIMES if unit == "s" else _SIZES
    size, name = next(((size, name) for size, name in steps if abs(value) >= size), steps[-1])
    return f"{_digits(value / size)} {name}"


def figure(value: float, kind: Kind) -> str:
    """Formats a headline figure, such as `3.1 N`, `0.74 ×`, `38 µs` or `184,000 /s`."""
    if kind in ("s", "B"):
        return amount(value, kind)
    if kind == "/s":
        return f"{round(value, 2 - len(str(int(value)))):,.0f} /s"
    return f"{_digits(value)} {_RATIOS[kind]}"


def target(goal: Target | None) -> str:
    """Formats a target, such as `≤ 4 N`."""
    if goal is None:
        return ""
    return f"{'≥' if goal.at_least else '≤'} {figure(goal.bound, goal.kind)}"


def spread(row: Row) -> str:
    """Returns half the distance between the quartiles of the headline figure, in percent of its median."""
    if not row.value or len(row.figures) < 2:
        return ""
    low, high = quartiles(row.figures)
    return f"± {(high - low) / 2 / row.value:.0%}"


def outcome(row: Row) -> str:
    """Returns `reached`, `missed`, `not measured`, or an empty string for a row without a target."""
    if row.value is None:
        return "not measured"
    return {True: "reached", False: "missed", None: ""}[row.reached]


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
