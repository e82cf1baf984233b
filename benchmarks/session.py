"""Runs benchmarks, each in its own process, and collects their results."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.measure import Growth, Result, Row
from benchmarks.peers import survey

Progress = Callable[["Benchmark", Result | None], None]
"""Gets each result of a benchmark, and `None` when it begins."""

_HERE = Path(__file__).parent
_ORDER = [
    *("connect", "request", "path", "flood", "open", "http"),
    *("process", "broker", "latency", "call", "audit", "tripwire", "import"),
]
"""The order of the report; benchmarks that are not listed come last."""

_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its name on the command line, its module, and the first paragraph of its docstring."""

    name: str
    module: str
    about: str


@dataclass(frozen=True)
class Section:
    """The results of one benchmark and its duration. `failure` has the last lines of stderr if it failed."""

    name: str
    about: str
    rows: tuple[Row, ...] = ()
    growths: tuple[Growth, ...] = ()
    failure: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """A whole run, as `--json` stores it.

    Attributes:
        quick: whether growth curves were shortened.
        machine: processor, system and Python version.
        sections: the results of each benchmark.
        peers: the version of each peer, or `""` if it is not installed.
    """

    quick: bool
    machine: dict[str, str]
    sections: tuple[Section, ...] = ()
    peers: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def timed(self) -> bool:
        """Whether anything was measured."""
        return any(row.value is not None for row in self.rows)

    @property
    def seconds(self) -> float:
        """The duration of the whole run."""
        return sum(section.seconds for section in self.sections)

    @property
    def failed(self) -> bool:
        """Whether a benchmark failed."""
        return any(section.failure for section in self.sections)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises `ValueError`, `KeyError` or `TypeError` if `to_json` did not write the text."""
        data = json.loads(text)
        sections = tuple(
            Section(
                part["name"],
                part["about"],
                tuple(Row.from_json(row) for row in part["rows"]),
                tuple(Growth.from_json(growth) for growth in part["growths"]),
                part["failure"],
                part.get("seconds", 0.0),
            )
            for part in data["sections"]
        )
        return cls(data["quick"], data["machine"], sections, data.get("peers", {}))


def find_benchmarks() -> list[Benchmark]:
    """Returns every benchmark, in the order of the report."""
    found = [_read_benchmark(path) for path in sorted(_HERE.glob("bench_*.py"))]
    return sorted(found, key=lambda found: _ORDER.index(found.name) if found.name in _ORDER else len(_ORDER))


def run_all(chosen: Iterable[Benchmark], *, quick: bool, progress: Progress) -> Report:
    """Runs the chosen benchmarks. `progress` gets each result, and `None` when a benchmark begins."""
    return Report(quick, machine(), tuple(_run(benchmark, quick, progress) for benchmark in chosen), survey())


def machine() -> dict[str, str]:
    """Returns what the figures depend on, without anything that identifies this host."""
    system = platform.release().split("-")[0]
    return {
        "processor": f"{os.cpu_count()} cores, {platform.machine()}{_processor()}",
        "system": f"{platform.system()} {system}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f", {platform.processor()}" if platform.processor() else ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f", {names[0]}" if names else ""


def _read_benchmark(path: Path) -> Benchmark:
    # Parsed as text, because importing a benchmark imports what it measures.
    about = ""
    text = path.read_text(encoding="utf-8")
    if text.startswith('"""'):
        about = " ".join(text[3:].partition('"""')[0].partition("\n\n")[0].split())
    return Benchmark(path.stem.removeprefix("bench_"), f"{__package__}.{path.stem}", about)


def _run(benchmark: Benchmark, quick: bool, progress: Progress) -> Section:
    progress(benchmark, None)
    rows: list[Row] = []
    growths: list[Growth] = []
    started = time.monotonic()
    command = [sys.executable, "-m", f"{__package__}.worker", benchmark.module, "quick" if quick else "full"]
    # stderr goes to a file: an unread pipe would block the benchmark once it is full.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", cwd=_HERE.parent, env=_environment()
        ) as process,
    ):
        for line in process.stdout or ():
            result = _result(json.loads(line))
            progress(benchmark, result)
            if isinstance(result, Row):
                rows.append(result)
            else:
                growths.append(result)
        failure = "" if process.wait() == 0 else _last_lines(errors, process.returncode)
    return Section(benchmark.name, benchmark.about, tuple(rows), tuple(growths), failure, time.monotonic() - started)


def _last_lines(errors: IO[str], status: int) -> str:
    errors.seek(0)
    return "\n".join([*errors.read().splitlines()[-_LAST_LINES:], f"(exit status {status})"])


def _result(message: dict[str, Any]) -> Result:
    return Row.from_json(message["row"]) if "row" in message else Growth.from_json(message["growth"])


def _environment() -> dict[str, str]:
    # The import path of this process; and bytecode enabled, because import times depend on it.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
