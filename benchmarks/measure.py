"""What a benchmark gives: measures, rows and growth curves. Values only; knows no clock and no claim."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Unit = Literal["s", "B", "count"]

Kind = Literal["N", "ratio", "faster", "s", "/s", "B", "count"]
"""How a row's figure is made.

`N`, `ratio`: guarded / baseline, where for `N` the baseline is an empty call. `faster`: baseline / guarded. `s`, `B`,
`count`: the guarded value itself. `/s`: operations per second, guarded.
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """What one thing cost: one value per repeat, of one operation, in seconds or bytes, or as a count."""

    name: str
    values: tuple[float, ...]
    unit: Unit = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """The figure to reach: at most `bound`, or at least it where more is better."""

    kind: Kind
    bound: float

    @property
    def at_least(self) -> bool:
        return self.kind in ("faster", "/s")

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        claim: what is claimed, in words.
        guarded: the cost with Nyx; `None` where it could not be measured.
        baseline: the cost of what it replaces, from the same rounds.
        target: the figure to reach; `None` where the row is there to compare.
        reason: why it was not measured, or what the limit is made of; told unless the target is reached.
    """

    claim: str
    guarded: Measure | None = None
    baseline: Measure | None = None
    target: Target | None = None
    reason: str = ""

    @property
    def kind(self) -> Kind:
        if self.target is not None:
            return self.target.kind
        if self.baseline is not None or self.guarded is None:
            return "ratio" if self.baseline is not None else "s"
        return self.guarded.unit

    @property
    def figures(self) -> tuple[float, ...]:
        """The headline figure of every round; a ratio is taken within its round, so that drift cancels out."""
        if self.guarded is None:
            return ()
        guarded = self.guarded.values
        if self.kind in ("s", "B", "count"):
            return guarded
        if self.kind == "/s":
            return tuple(1 / value for value in guarded)
        if self.baseline is None:
            return ()
        baseline = self.baseline.values
        if len(guarded) != len(baseline):
            guarded, baseline = (self.guarded.median,), (self.baseline.median,)
        pairs = zip(guarded, baseline, strict=True)
        return tuple(plain / safe if self.kind == "faster" else safe / plain for safe, plain in pairs)

    @property
    def value(self) -> float | None:
        """The headline figure: the median over the rounds."""
        return statistics.median(figures) if (figures := self.figures) else None

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; `None` where there is none, or nothing to hold against it."""
        value = self.value
        return None if value is None or self.target is None else self.target.reached(value)

    @property
    def remark(self) -> str:
        """The reason, where it is to be told."""
        return "" if self.reached else self.reason

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            data["claim"],
            _measure(data["guarded"]),
            _measure(data["baseline"]),
            Target(**data["target"]) if data["target"] is not None else None,
            data["reason"],
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: a measure at each x, rising."""

    name: str
    points: tuple[tuple[float, Measure], ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """How a cost grows: curves over one x axis. By custom the first is guarded, the last its baseline."""

    title: str
    x_label: str
    series: tuple[Series, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        series = tuple(
            Series(curve["name"], tuple((x, _known(measure)) for x, measure in curve["points"]))
            for curve in data["series"]
        )
        return cls(data["title"], data["x_label"], series)


Result = Row | Growth


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """Returns the first and the third quartile: the spread that is printed."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _known(data: Mapping[str, Any]) -> Measure:
    return Measure(data["name"], tuple(data["values"]), data["unit"])


def _measure(data: Mapping[str, Any] | None) -> Measure | None:
    return None if data is None else _known(data)
