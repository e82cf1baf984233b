"""`nyx bench` runs the benchmarks of the checkout and passes its options on."""

import json
from pathlib import Path

from nyx_stream.cli import ExitCode, main
from nyx_stream.cli import bench as bench_module


def test_it_runs_one_benchmark_and_writes_its_figures(tmp_path: Path) -> None:
    """One claim in quick mode: exit code 0, and the figures in the file."""
    figures = tmp_path / "figures.json"
    report = tmp_path / "report.html"
    assert main(["bench", "--quick", "--only", "path", "--json", str(figures), "--html", str(report)]) == ExitCode.OK
    assert json.loads(figures.read_text(encoding="utf-8"))
    assert report.is_file()


def test_outside_a_checkout_it_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    """The installed package has no benchmarks: one clear line, and an exit code of the table."""
    monkeypatch.setattr(bench_module, "_CHECKOUT", tmp_path)
    assert main(["bench"]) == ExitCode.FILE
    assert "run this in a checkout" in capsys.readouterr().err
