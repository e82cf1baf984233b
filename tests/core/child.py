"""Runs cases that confine irreversibly, each in a forked child of a new interpreter, as root and as an ordinary user.

The interpreter imports a module of cases once. Every case is a function. Its child reports the result over a pipe,
which distinguishes an exec, a kill or a crash from an exception.
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
ORDINARY_USER = 65534
TIMEOUT = 20  # seconds until a case that hangs is killed

Function = Callable[[], object]


class Outcome(NamedTuple):
    """The outcome of a case. `ended`: returned, raised, replaced (by exec) or killed; `errno`: a name or empty."""

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


def root_directory_is_open() -> bool:
    """Whether an ordinary user may enter the root directory, and so use absolute paths."""
    return os.stat("/").st_mode & 0o5 == 0o5


def identities() -> list[int]:
    """The users to run as: the current one, and uid 65534 if the current one is root."""
    return [0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()]


def run_cases(module: str, uid: int) -> dict[str, Outcome]:
    """Run every case of `module` (a dotted name below `tests`) as `uid`."""
    python = python_for(uid)
    if python is None:
        raise FileNotFoundError(f"no interpreter that uid {uid} may start")
    directory = tempfile.mkdtemp(prefix="nyx-cases-", dir="/tmp")
    if os.getuid() == 0:
        os.chown(directory, uid, uid)
    environment = {"PATH": "/usr/bin:/bin", "TZ": "UTC", "SECRET": "hunter2", "TMPDIR": directory, "LC_ALL": "C.UTF-8"}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.core.child import main; main({module!r})"
    command = [python, "-I", "-B", "-c", program]
    if uid != os.getuid() or (uid == 0 and not root_directory_is_open()):
        entry = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.core.open_root import main; main()"
        command = [sys.executable, "-I", "-B", "-c", entry, str(uid), directory, *command]
    try:
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{module} as {uid} ended with {done.returncode}:\n{done.stderr}")
        return {name: Outcome(*fields) for name, fields in json.loads(done.stdout).items()}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(module: str) -> None:
    """In the new interpreter: run all cases and print the outcomes as JSON."""
    cases: dict[str, Function] = importlib.import_module(module).CASES
    print(json.dumps({name: run_case(function) for name, function in cases.items()}))


def run_case(function: Function) -> Outcome:
    """Run one case in a forked child."""
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(out, 1)  # every confinement keeps descriptor 1 open
        os.close(out)
        os.close(back)
        signal.alarm(TIMEOUT)
        os.chdir(tempfile.mkdtemp(dir="."))
        os.write(1, json.dumps(_attempt(function)).encode())
        os._exit(0)
    os.close(out)
    with os.fdopen(back, "rb") as pipe:
        reported = pipe.read()
    _, status = os.waitpid(child, 0)
    if reported:
        return Outcome(*json.loads(reported))
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
