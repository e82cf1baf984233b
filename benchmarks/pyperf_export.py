"""Exports the measured values as a pyperf suite, for `stats`, `hist` and `compare_to`. Needs pyperf (extra `bench`)."""

from typing import Any

from benchmarks.session import Report


def write_pyperf(pyperf: Any, report: Report, path: str) -> None:
    """Writes one benchmark for each measure of time, with the module `pyperf`; raises `OSError`."""
    sides = [(row.claim, side) for row in report.rows for side in (row.guarded, row.baseline) if side is not None]
    found = {f"{claim} | {side.name}": side for claim, side in sides}
    runs = {
        name: pyperf.Run(list(measure.values), metadata={"name": name, "unit": "second"}, collect_metadata=False)
        for name, measure in found.items()
        # pyperf accepts only positive times.
        if measure.unit == "s" and min(measure.values) > 0
    }
    if runs:
        pyperf.BenchmarkSuite([pyperf.Benchmark([run]) for run in runs.values()]).dump(path, replace=True)
