"""The arithmetic from measures to figures, and the charts."""

import pytest

from benchmarks import figures, svg
from benchmarks.measure import Growth, Kind, Measure, Row, Series, Target
from benchmarks.timing import QUICK, Budget, empty_call, interleave


def measure(*values: float) -> Measure:
    return Measure("m", values)


@pytest.mark.parametrize(
    ("kind", "bound", "value", "reached", "text"),
    [
        ("ratio", 2.0, 2.0, True, "2 ×"),
        ("ratio", 1.9, 2.0, False, "2 ×"),
        ("N", 4.0, 2.0, True, "2 N"),
        ("faster", 0.5, 0.5, True, "0.5 × as fast"),
        ("faster", 4.0, 0.5, False, "0.5 × as fast"),
        ("s", 3e-6, 2e-6, True, "2 µs"),
        ("/s", 400_000, 500_000, True, "500,000 /s"),
        ("/s", 600_000, 500_000, False, "500,000 /s"),
    ],
)
def test_the_target_determines_the_figure(kind: Kind, bound: float, value: float, reached: bool, text: str) -> None:
    """Each kind of target has its figure, its direction and its text."""
    row = Row("claim", measure(2e-6, 4e-6, 1e-6), measure(1e-6, 2e-6, 0.5e-6), Target(kind, bound))
    assert row.value == pytest.approx(value)
    assert row.reached is reached
    assert figures.figure(row.value or 0, kind) == text


def test_a_ratio_is_taken_within_its_round() -> None:
    """A round in which both were slow has the same ratio as any other."""
    row = Row("claim", measure(2.0, 20.0, 200.0), measure(1.0, 10.0, 100.0))
    assert row.figures == (2.0, 2.0, 2.0)
    assert figures.spread(row) == "± 0%"


def test_all_loops_are_timed_in_every_round() -> None:
    """Interleaving yields one value per loop and round, for one operation."""
    counts: dict[str, list[int]] = {"a": [], "b": []}

    def loop(name: str):
        def repeat(count: int) -> float:
            counts[name].append(count)
            return count * 2e-6

        return repeat

    times = interleave(Budget(True, 5, 1e-3), {"a": loop("a"), "b": loop("b")})
    assert [len(times[name].values) for name in "ab"] == [5, 5]
    assert times["a"].values == pytest.approx([2e-6] * 5)
    assert counts["a"][-1] * 2e-6 >= 1e-3


def test_an_empty_call_is_timed() -> None:
    """N is a positive time."""
    assert interleave(QUICK, {"N": empty_call()}, rounds=3)["N"].median > 0


def test_curves_of_any_values_are_drawn() -> None:
    """A chart accepts zero as an x, a single point, and curves of different lengths."""
    curve = Series("a < b", ((0, measure(1e-6, 2e-6)), (1 << 30, measure(1.0))))
    drawn = svg.lines(Growth("growth", "bytes", (curve, Series("one", ((1, measure(1e-3)),)))))
    assert drawn.count("<polyline") == 2
    assert "a &lt; b" in drawn
    assert svg.lines(Growth("empty", "x", ())) == ""
    assert svg.bars([Row("nothing", reason="why")]) == ""


def test_an_axis_shows_the_measured_range() -> None:
    """The x axis begins and ends with the first and the last point, and labels both."""
    drawn = svg.lines(Growth("depth", "components", (Series("s", ((1, measure(1e-6)), (16, measure(2e-6)))),)))
    assert 'x="70.0" y="318.0">1</text>' in drawn
    assert 'x="860.0" y="318.0">16</text>' in drawn


def test_a_value_without_an_axis_is_shown_as_text() -> None:
    """Bytes among times are shown as text, and a claim that is too long keeps its full text in a tooltip."""
    memory = Row("m" * 80, Measure("RSS", (1024.0,), "B"))
    drawn = svg.bars([Row("time", measure(1e-6)), memory])
    assert "1 KiB" in drawn
    assert f"<title>{'m' * 80}</title>" in drawn
