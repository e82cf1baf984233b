"""A granted directory R with a secret S beside it, and the two openers below R."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

if sys.platform == "win32":
    # They test openat2 and the walk, which Windows doesn't have; see test_windows and test_windows_live.
    collect_ignore = ["test_opening.py", "test_changing.py", "test_agreement.py", "test_filtered.py"]
else:
    from nyx_core.beneath.openat2 import openat2_opener, probe
    from nyx_core.beneath.root import Root, native_opener, open_root
    from nyx_core.beneath.walk import Opener, walking_opener

    OPENERS = {"openat2": native_opener, "walk": walking_opener}


@pytest.fixture(params=sorted(OPENERS))
def opener(request: pytest.FixtureRequest) -> Callable[[int], Opener]:
    """Each test that uses it runs with openat2 and with the walk."""
    if request.param == "openat2" and (reason := probe()) is not None:
        pytest.skip(reason)
    return OPENERS[request.param]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`R` with some content; beside it `S` (a secret file) and `out` (a directory)."""
    inside = tmp_path / "R"
    for name in ("a", "b/c", "b/d"):
        (inside / name).mkdir(parents=True)
    (inside / "f").write_text("inside")
    (inside / "b/t").write_text("b/t")
    (inside / "b/c/f").write_text("deep")
    (tmp_path / "S").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f").write_text("secret")
    os.mkfifo(inside / "fifo")
    return tmp_path


@pytest.fixture
def root(tree: Path, opener: Callable[[int], Opener]) -> Iterator[Root]:
    """The open root R."""
    held = open_root(str(tree / "R"), opener)
    yield held
    held.close()


@pytest.fixture
def pure_openat2() -> Callable[[int], Opener]:
    """openat2 without its fallback, to compare it with the walk."""
    if (reason := probe()) is not None:
        pytest.skip(reason)
    return openat2_opener
