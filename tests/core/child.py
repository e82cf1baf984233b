"""Runs cases that confine for good: each in a forked child of one fresh interpreter, as root and as nobody.

The interpreter imports a module of cases once. Every case is a function; its child reports over a pipe what came of
it, so that an exec, a kill or a crash is told from an exception.
"""

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PATIENCE = 20  # seconds until a case that hangs is killed

Function = Callable[[], object]


class Outcome(NamedTuple):
    """What came of a case: `ended` is returned, raised, replaced (by exec) or killed; `errno` a name or empty."""

    ended: str
    value: Any = None
    errno: str = ""
    text: str = ""


def python_for(uid: int) -> str | None:
    """An interpreter that `uid` may start, or `None`."""
    own = Path(sys.executable).resolve()
    enterable = all(parent.stat().st_mode & 0o5 == 0o5 for parent in own.parents if parent != Path("/"))
    if uid == os.getuid() or enterable:
        return sys.executable
    return shutil.which("python3", path="/usr/bin:/usr/local/bin")


def everyone_enters_root() -> bool:
    """Whether an ordinary user can use absolute paths at all."""
    return os.stat("/").st_mode & 0o5 == 0o5


def identities() -> list[int]:
    """The users to run as: the own one, and nobody where the own one is root."""
    return [0, NOBODY] if os.getuid() == 0 else [os.getuid()]


def run_cases(module: str, uid: int) -> dict[str, Outcome]:
    """Run every case of `module` (a dotted name below `tests`) as `uid`."""
    python = python_for(uid)
    if python is None:
        raise FileNotFoundError("no interpreter that nobody may start")
    room = tempfile.mkdtemp(prefix="nyx-cases-", dir="/tmp")
    if os.getuid() == 0:
        os.chown(room, uid, uid)
    environment = {"PATH": "/usr/bin:/bin", "TZ": "UTC", "SECRET": "hunter2", "TMPDIR": room, "LC_ALL": "C.UTF-8"}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.core.child import main; main({module!r})"
    command = [python, "-I", "-B", "-c", program]
    if uid != os.getuid() or (uid == 0 and not everyone_enters_root()):
        entry = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.core.open_root import main; main()"
        command = [sys.executable, "-I", "-B", "-c", entry, str(uid), room, *command]
    try:
        done = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{module} as {uid} ended with {done.returncode}:\n{done.stderr}")
        return {name: Outcome(*fields) for name, fields in json.loads(done.stdout).items()}
    finally:
        shutil.rmtree(room, ignore_errors=True)


def main(module: str) -> None:
    """Inside the fresh interpreter: run all cases and print the outcomes as JSON."""
    cases: dict[str, Function] = importlib.import_module(module).CASES
    print(json.dumps({name: run_case(function) for name, function in cases.items()}))


def run_case(function: Function) -> Outcome:
    """Run one case in a child of its own."""
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(out, 1)  # stays open whatever a confinement closes
        os.close(out)
        os.close(back)
        signal.alarm(PATIENCE)
        os.chdir(tempfile.mkdtemp(dir="."))
        os.write(1, json.dumps(_attempt(function)).encode())
        os._exit(0)
    os.close(out)
    with os.fdopen(back, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        return Outcome(*json.loads(told))
    if os.WIFSIGNALED(status):
        return Outcome("killed", None, "", signal.Signals(os.WTERMSIG(status)).name)
    return Outcome("replaced", os.WEXITSTATUS(status))


def _attempt(function: Function) -> Outcome:
    try:
        return Outcome("returned", function())
    except OSError as error:
        return Outcome("raised", None, errno.errorcode.get(error.errno or 0, ""), f"{type(error).__name__}: {error}")
    except BaseException as error:
        return Outcome("raised", None, "", f"{type(error).__name__}: {error}")
