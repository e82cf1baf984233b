"""The benchmark command: its output and its files. No test here checks a time."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.html_report import to_html
from benchmarks.measure import Row
from benchmarks.peers import PEERS, peer
from benchmarks.session import Benchmark, Report, find_benchmarks, run_all
from benchmarks.table import peers

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """The output of the command and the files that it wrote."""

    status: int
    output: str
    json: Path
    html: Path


def run_benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `--only tripwire --quick`, the fastest benchmark, which also starts processes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    json, html = folder / "figures.json", folder / "report.html"
    done = run_benchmarks("--only", "tripwire", "--quick", "--json", str(json), "--html", str(html))
    return Run(done.returncode, done.stdout, json, html)


class Fetches(HTMLParser):
    """Collects everything that a browser would fetch or run, and the open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag in ("script", "link", "img", "iframe", "object"):
            self.fetched.append(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.fetched += [link for link in links if not link.startswith("#")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_quick_run_succeeds_and_prints_the_paths_of_its_files(quick_run: Run) -> None:
    """The command exits with 0 and prints a table with a figure and an outcome for each row."""
    assert quick_run.status == 0
    assert "tripwire installed" in quick_run.output
    assert "1.1 ×" in quick_run.output
    assert str(quick_run.json) in quick_run.output
    assert str(quick_run.html) in quick_run.output


def test_the_json_is_read_back_as_it_was_written(quick_run: Run) -> None:
    """The figures file has every value of every round, and parses to the same report."""
    text = quick_run.json.read_text(encoding="utf-8")
    report = Report.from_json(text)
    assert json.loads(report.to_json()) == json.loads(text)
    assert report.quick
    assert report.timed
    assert not report.failed
    for row in report.rows:
        assert row.guarded is not None
        assert row.baseline is not None
        assert len(row.guarded.values) == len(row.baseline.values) > 1


def test_the_report_stands_alone(quick_run: Run) -> None:
    """The HTML report is well formed, has a chart, and fetches or runs nothing."""
    page = Fetches()
    page.feed(quick_run.html.read_text(encoding="utf-8"))
    assert page.fetched == []
    assert page.open == []
    assert {"table", "svg", "rect", "circle"} <= page.seen


def test_an_earlier_run_is_shown_in_comparison(quick_run: Run) -> None:
    """With `--compare`, each row has its earlier figure, and the ratio of the current one to it."""
    report = Report.from_json(quick_run.json.read_text(encoding="utf-8"))
    assert "(now 1.00 ×)" in to_html(report, report)


def test_a_file_of_another_kind_is_a_clear_error(tmp_path: Path) -> None:
    """`--compare` with another kind of file names that file and runs nothing."""
    for content in ("{}", "not json", '{"sections": 1}'):
        file = tmp_path / "other.json"
        file.write_text(content, encoding="utf-8")
        done = run_benchmarks("--compare", str(file), "--only", "tripwire", "--quick")
        assert done.returncode != 0
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unwritable_file_is_reported_after_the_table(tmp_path: Path) -> None:
    """The table is printed, the other files are written, and the run fails."""
    report = tmp_path / "report.html"
    nowhere = str(tmp_path / "none" / "x.json")
    done = run_benchmarks("--only", "tripwire", "--quick", "--json", nowhere, "--html", str(report))
    assert done.returncode == 1
    assert "tripwire installed" in done.stdout
    assert f"{nowhere}: No such file or directory" in done.stderr
    assert report.exists()


def test_a_failing_benchmark_is_reported_and_fails_the_run() -> None:
    """The report has the last lines of a failing benchmark's stderr, and the run counts as not timed."""
    report = run_all([Benchmark("none", "benchmarks.bench_none", "")], quick=True, progress=lambda *_: None)
    assert report.failed
    assert not report.timed
    assert "bench_none" in report.sections[0].failure
    assert "failed" in to_html(report)


def test_every_benchmark_has_a_description() -> None:
    """Each `bench_….py` is found, with the first paragraph of its docstring as description."""
    benchmarks = find_benchmarks()
    assert {
        "connect",
        "path",
        "request",
        "flood",
        "open",
        "http",
        "process",
        "call",
        "audit",
        "import",
        "tripwire",
    } <= {benchmark.name for benchmark in benchmarks}
    assert all(benchmark.about for benchmark in benchmarks)


def test_an_unmeasured_row_has_no_outcome() -> None:
    """A row without a measure has no figure, and its target is neither reached nor missed."""
    row = Row("something", reason="the kernel lacks it")
    assert row.value is None
    assert row.reached is None


def test_every_peer_of_the_extra_is_reported() -> None:
    """The report lists every peer of the extra `bench` (all but pyperf) as measured or absent."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {re.split("[^a-z0-9-]", requirement)[0] for requirement in extra["bench"]}
    assert set(PEERS) == names - {"nyx-sandbox", "pyperf"}


def test_an_absent_peer_is_listed_as_absent() -> None:
    """An installed peer is listed with its version, any other as not installed."""
    report = Report(True, {}, (), {"sandlock": "0.9.0", "nono-py": ""})
    assert peers(report) == "sandlock 0.9.0; not installed: nono-py"
    assert peers(report) in to_html(report)
    assert "is not installed here" in str(peer("no_such_peer"))
