"""`nyx bench` runs the benchmarks of the checkout with its options."""

import json
from pathlib import Path

from nyx_stream.cli import ExitCode, main
from nyx_stream.cli import bench as bench_module


def test_it_runs_one_benchmark_and_writes_the_figures(tmp_path: Path) -> None:
    """One benchmark in quick mode writes figures and report."""
    figures = tmp_path / "figures.json"
    report = tmp_path / "report.html"
    assert main(["bench", "--quick", "--only", "path", "--json", str(figures), "--html", str(report)]) == ExitCode.OK
    assert json.loads(figures.read_text(encoding="utf-8"))
    assert report.is_file()


def test_outside_a_checkout_it_prints_the_two_commands_to_run(tmp_path: Path, monkeypatch, capsys) -> None:
    """The installed package has no benchmarks: the error names the commands."""
    monkeypatch.setattr(bench_module, "_CHECKOUT", tmp_path)
    assert main(["bench"]) == ExitCode.FILE
    error = capsys.readouterr().err
    assert "run these two commands in a checkout" in error
    assert error.splitlines()[1:] == ["  pip install '.[bench]'", "  python -m benchmarks"]
