"""Runs benchmarks, each in its process, and gathers what they give. Prints nothing."""

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

_HERE = Path(__file__).parent
_ORDER = [
    *("connect", "request", "path", "flood", "open", "http"),
    *("process", "broker", "latency", "call", "audit", "tripwire", "import", "calls"),
]
"""How a reader goes through them; one that is not listed comes last."""

_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """One file: its name on the command line, its module, and the first paragraph of its docstring."""

    name: str
    module: str
    about: str


@dataclass(frozen=True)
class Section:
    """What one benchmark gave, and how long it took. `failure` has its last words if it broke off."""

    name: str
    about: str
    rows: tuple[Row, ...] = ()
    growths: tuple[Growth, ...] = ()
    failure: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """A whole run, as it is written to JSON and read back.

    Attributes:
        quick: whether the ends of growth curves were cut.
        machine: what the figures depend on.
        sections: what each benchmark gave.
        peers: each package that is timed beside Nyx, with its version, or `""` where it is not installed.
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
        """Whether anything at all was measured."""
        return any(row.value is not None for row in self.rows)

    @property
    def seconds(self) -> float:
        """How long the whole run took."""
        return sum(section.seconds for section in self.sections)

    @property
    def failed(self) -> bool:
        """Whether a benchmark broke off."""
        return any(section.failure for section in self.sections)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises `ValueError`, `KeyError` or `TypeError` for what `to_json` did not write."""
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


def benches() -> list[Bench]:
    """Returns every benchmark there is, in reading order."""
    found = [_bench(path) for path in sorted(_HERE.glob("bench_*.py"))]
    return sorted(found, key=lambda bench: _ORDER.index(bench.name) if bench.name in _ORDER else len(_ORDER))


def run_all(chosen: Iterable[Bench], *, quick: bool, progress: Callable[[Bench, Result | None], None]) -> Report:
    """Runs the chosen benchmarks; `progress` is told each result, and `None` when a benchmark begins."""
    return Report(quick, machine(), tuple(_run(bench, quick, progress) for bench in chosen), survey())


def machine() -> dict[str, str]:
    """Returns what the figures depend on, and nothing that names this host."""
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


def _bench(path: Path) -> Bench:
    # Read, not imported: importing a benchmark imports what it measures.
    about = ""
    text = path.read_text(encoding="utf-8")
    if text.startswith('"""'):
        about = " ".join(text[3:].partition('"""')[0].partition("\n\n")[0].split())
    return Bench(path.stem.removeprefix("bench_"), f"{__package__}.{path.stem}", about)


def _run(bench: Bench, quick: bool, progress: Callable[[Bench, Result | None], None]) -> Section:
    progress(bench, None)
    rows: list[Row] = []
    growths: list[Growth] = []
    begun = time.monotonic()
    command = [sys.executable, "-m", f"{__package__}.worker", bench.module, "quick" if quick else "full"]
    # The standard error goes to a file: a pipe that nobody reads would stop the benchmark once it is full.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, encoding="utf-8", cwd=_HERE.parent, env=_environment()
        ) as process,
    ):
        for line in process.stdout or ():
            result = _result(json.loads(line))
            progress(bench, result)
            if isinstance(result, Row):
                rows.append(result)
            else:
                growths.append(result)
        failure = "" if process.wait() == 0 else _last_lines(said, process.returncode)
    return Section(bench.name, bench.about, tuple(rows), tuple(growths), failure, time.monotonic() - begun)


def _last_lines(said: IO[str], status: int) -> str:
    said.seek(0)
    return "\n".join([*said.read().splitlines()[-_LAST_LINES:], f"(exit status {status})"])


def _result(message: dict[str, Any]) -> Result:
    return Row.from_json(message["row"]) if "row" in message else Growth.from_json(message["growth"])


def _environment() -> dict[str, str]:
    # The import path of this process, however it was made; and bytecode, which the import times are about.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
