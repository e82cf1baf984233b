"""`check_path`: may this plugin access that path, judged by its text? Compared with asking the file system through
`pathlib`.

The baseline is the common check `Path(path).resolve().is_relative_to(prefix)`. It reads every link on the way and isn't
safer, because the path may change before it is opened.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Growth, Result, Row, Series, Target
from benchmarks.timing import EMPTY, Budget, Loop, cpu_time, empty_call, interleave, statement
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy

_RESOLVE = "Path.resolve + is_relative_to"


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/data/file.txt"
        Path(path).parent.mkdir()
        Path(path).touch()
        yield from _rows(budget, folder, path)
        yield _by_prefixes(budget, folder, path)
        yield _by_components(budget, folder)


def _guard(prefixes: int, folder: str) -> SandboxGuard:
    others = [f"/srv/data/tenant{number}/files" for number in range(prefixes - 1)]
    return SandboxGuard(SandboxPolicy.locked_down().allow_path_prefix(*others, folder))


def _check(guard: SandboxGuard, path: str) -> Loop:
    return statement("guard.check_path(path)", guard=guard, path=path)


def _other_names(guard: SandboxGuard, folder: str) -> Loop:
    """Returns a loop over new names in a known folder."""
    numbers = itertools.count()

    def loop(count: int) -> float:
        paths = [f"{folder}/data/{next(numbers)}.txt" for _ in range(count)]
        start = cpu_time()
        for path in paths:
            guard.check_path(path)
        return cpu_time() - start

    return loop


def _new_folders(guard: SandboxGuard, folder: str) -> Loop:
    numbers = itertools.count()

    def loop(count: int) -> float:
        paths = [f"{folder}/{next(numbers)}/file.txt" for _ in range(count)]
        start = cpu_time()
        for path in paths:
            guard.check_path(path)
        return cpu_time() - start

    return loop


def _resolve(path: str, prefix: str) -> Loop:
    return statement("Path(path).resolve().is_relative_to(prefix)", Path=Path, path=path, prefix=Path(prefix))


def _rows(budget: Budget, folder: str, path: str) -> Iterator[Row]:
    ten, many = _guard(10, folder), _guard(100_000, folder)
    times = interleave(
        budget,
        {
            "10": _check(ten, path),
            "100,000": _check(many, path),
            "other names": _other_names(ten, folder),
            "new folders": _new_folders(_guard(10, folder), folder),
            _RESOLVE: _resolve(path, folder),
            EMPTY: empty_call(),
        },
    )
    for size in ("10", "100,000"):
        yield Row(f"check_path, clean absolute path, {size} prefixes", times[size], times[EMPTY], Target("N", 15))
    yield Row("check_path against Path.resolve + is_relative_to", times["10"], times[_RESOLVE], Target("faster", 20))
    yield Row("check_path, new name in a folder seen before", times["other names"], times[EMPTY], Target("N", 15))
    yield Row("check_path in a folder not seen before", times["new folders"], times[_RESOLVE])


def _by_prefixes(budget: Budget, folder: str, path: str) -> Growth:
    sizes = [10, 100, 1_000, 10_000, *([] if budget.quick else [100_000, 1_000_000])]
    loops: dict[str, Loop] = {_RESOLVE: _resolve(path, folder), EMPTY: empty_call()}
    for size in sizes:
        guard = _guard(size, folder)
        loops |= {f"seen {size}": _check(guard, path), f"new {size}": _new_folders(guard, folder)}
    times = interleave(budget, loops, rounds=budget.curve)
    return Growth(
        "check_path by number of prefixes",
        "prefixes",
        (
            Series("folder seen before", tuple((size, times[f"seen {size}"]) for size in sizes)),
            Series("folder not seen before", tuple((size, times[f"new {size}"]) for size in sizes)),
            Series(_RESOLVE, tuple((size, times[_RESOLVE]) for size in sizes)),
            Series("an empty call (N)", tuple((size, times[EMPTY]) for size in sizes)),
        ),
    )


def _by_components(budget: Budget, folder: str) -> Growth:
    depths = [1, 4, 16, *([] if budget.quick else [64])]
    guard = _guard(10, folder)
    loops: dict[str, Loop] = {}
    for depth in depths:
        path = "/".join([folder, *(["d"] * (depth - 1)), "file.txt"])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        start = "/".join([folder, *(["d"] * (depth - 1))])
        loops[f"seen {depth}"] = _check(guard, path)
        loops[f"new {depth}"] = _new_folders(guard, start)
        loops[f"resolve {depth}"] = _resolve(path, folder)
    times = interleave(budget, loops, rounds=budget.curve)
    curves = {"seen": "folder seen before", "new": "folder not seen before", "resolve": _RESOLVE}
    return Growth(
        "check_path by depth",
        "components below the prefix",
        tuple(Series(name, tuple((d, times[f"{key} {d}"]) for d in depths)) for key, name in curves.items()),
    )
