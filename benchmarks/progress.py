"""What is running, on the standard error: a bar where `rich` is installed and a person watches, lines otherwise."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.measure import Result, Row
from benchmarks.session import Bench

Progress = Callable[[Bench, Result | None], None]


@contextmanager
def progress_of(chosen: Sequence[Bench]) -> Iterator[Progress]:
    """Yields what to call with each result, and with `None` when a benchmark begins."""
    try:
        import rich  # noqa: F401  # optional, for people
    except ImportError:
        yield _lines
        return
    if not sys.stderr.isatty():
        yield _lines
        return
    with _bar(chosen) as progress:
        yield progress


def _lines(bench: Bench, result: Result | None) -> None:
    text = "…" if result is None else result.claim if isinstance(result, Row) else result.title
    print(f"{bench.name}: {text}", file=sys.stderr)


@contextmanager
def _bar(chosen: Sequence[Bench]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    begun = 0
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(chosen))

        def progress(bench: Bench, result: Result | None) -> None:
            nonlocal begun
            if result is None:
                bar.update(task, completed=begun, description=bench.name)
                begun += 1
            else:
                text = result.claim if isinstance(result, Row) else result.title
                bar.update(task, description=f"{bench.name}: {text}")

        yield progress
