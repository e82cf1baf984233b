"""Shows progress on stderr: a bar if `rich` is installed and stderr is a terminal, lines otherwise."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.measure import Result, Row
from benchmarks.session import Benchmark, Progress


@contextmanager
def progress_of(chosen: Sequence[Benchmark]) -> Iterator[Progress]:
    """Yields the callback for `run_all`."""
    try:
        import rich  # noqa: F401  # optional: only checks that it is installed
    except ImportError:
        yield _lines
        return
    if not sys.stderr.isatty():
        yield _lines
        return
    with _bar(chosen) as progress:
        yield progress


def _lines(benchmark: Benchmark, result: Result | None) -> None:
    text = "…" if result is None else result.claim if isinstance(result, Row) else result.title
    print(f"{benchmark.name}: {text}", file=sys.stderr)


@contextmanager
def _bar(chosen: Sequence[Benchmark]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    begun = 0
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(chosen))

        def progress(benchmark: Benchmark, result: Result | None) -> None:
            nonlocal begun
            if result is None:
                bar.update(task, completed=begun, description=benchmark.name)
                begun += 1
            else:
                text = result.claim if isinstance(result, Row) else result.title
                bar.update(task, description=f"{benchmark.name}: {text}")

        yield progress
