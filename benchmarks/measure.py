"""The results of a benchmark as values: measures, rows and growth curves."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Unit = Literal["s", "B"]

Kind = Literal["N", "ratio", "faster", "s", "/s", "B"]
"""How a row's figure is computed.

`N`, `ratio`: guarded / baseline, where for `N` the baseline is an empty call. `faster`: baseline / guarded. `s`, `B`:
the guarded value itself. `/s`: operations per second, guarded.
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """The cost of one operation, in seconds or bytes: one value per round."""

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
    """The target of a figure: at most `bound`, or at least `bound` for kinds where more is better."""

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
        claim: what is measured, in words. `--compare` matches rows by it.
        guarded: the cost with Nyx; `None` if it could not be measured.
        baseline: the cost without Nyx, from the same rounds.
        target: the target; `None` for a row that is only a comparison.
        reason: why it was not measured, or what the cost consists of; shown unless the target is reached.
    """

    claim: str
    guarded: Measure | None = None
    baseline: Measure | None = None
    target: Target | None = None
    reason: str = ""

    @property
    def kind(self) -> Kind:
        return self.target.kind if self.target is not None else "ratio" if self.baseline is not None else "s"

    @property
    def figures(self) -> tuple[float, ...]:
        """The headline figure of every round; a ratio is taken within its round, so that drift cancels out."""
        if self.guarded is None:
            return ()
        guarded = self.guarded.values
        if self.kind in ("s", "B"):
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
        """Whether the target was reached; `None` without a target or a figure."""
        value = self.value
        return None if value is None or self.target is None else self.target.reached(value)

    @property
    def remark(self) -> str:
        """The reason, if it should be shown."""
        return "" if self.reached else self.reason

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            data["claim"],
            _optional_measure(data["guarded"]),
            _optional_measure(data["baseline"]),
            Target(**data["target"]) if data["target"] is not None else None,
            data["reason"],
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: a measure at each x, in ascending order."""

    name: str
    points: tuple[tuple[float, Measure], ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """How a cost grows: curves over one x axis. By convention the first is guarded and the last is its baseline."""

    title: str
    x_label: str
    series: tuple[Series, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        series = tuple(
            Series(curve["name"], tuple((x, _measure_from(measure)) for x, measure in curve["points"]))
            for curve in data["series"]
        )
        return cls(data["title"], data["x_label"], series)


Result = Row | Growth


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """Returns the first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _measure_from(data: Mapping[str, Any]) -> Measure:
    return Measure(data["name"], tuple(data["values"]), data["unit"])


def _optional_measure(data: Mapping[str, Any] | None) -> Measure | None:
    return None if data is None else _measure_from(data)
