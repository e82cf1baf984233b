"""Attempts that bypass the capabilities with plain Python. Each is harmless where nothing refuses it."""

import asyncio
import ctypes
import errno
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator

from attempt import Action

_DISCARD = ("127.0.0.1", 9)
"""The discard port, where no server listens."""
_PTRACE_SEIZE = 0x4206


def attempts() -> Iterator[tuple[str, Action]]:
    """Yields (what, attempt)."""
    for what, function in _FUNCTIONS.items():
        yield what, _as_coroutine(function)
    yield "asyncio.create_subprocess_exec", lambda: asyncio.create_subprocess_exec("true")
    yield "asyncio.open_connection", lambda: asyncio.open_connection(*_DISCARD)
    yield "open(), from a thread", lambda: asyncio.to_thread(open, "/etc/passwd")
    yield "open(), from the loop's executor", _in_executor


def _as_coroutine(function: Callable[[], object]) -> Action:
    async def run() -> object:
        return function()

    return run


async def _in_executor() -> object:
    return await asyncio.get_running_loop().run_in_executor(None, open, "/etc/passwd")


def _connect() -> None:
    with socket.socket() as connection:
        connection.connect(_DISCARD)


def _shell() -> None:
    if os.system("true") != 0:
        raise PermissionError(errno.EPERM, "the shell was not started")


def _native_call() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.kill(os.getppid(), 0) != 0:
        raise OSError(ctypes.get_errno(), "kill failed")


def _trace_host() -> None:
    sys.settrace(None)
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(_PTRACE_SEIZE, os.getppid(), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace failed")


def _thread() -> None:
    errors: list[BaseException] = []

    def read() -> None:
        try:
            open("/etc/passwd").close()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


_FUNCTIONS: dict[str, Callable[[], object]] = {
    "open() to read": lambda: open("/etc/passwd").close(),
    "open() to write": lambda: open(os.path.join(os.curdir, "nyx-rogue.txt"), "w").close(),
    "os.open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "pathlib.Path.read_text": lambda: pathlib.Path("/etc/passwd").read_text(),
    "os.listdir": lambda: os.listdir("/"),
    "os.scandir": lambda: os.scandir("/"),
    "os.remove": lambda: os.remove("/nonexistent/nyx-rogue"),
    "os.rename": lambda: os.rename("/nonexistent/nyx-rogue", "/nonexistent/nyx-rogue-2"),
    "os.symlink": lambda: os.symlink("/etc/passwd", "/nonexistent/nyx-rogue"),
    "os.chmod": lambda: os.chmod("/nonexistent/nyx-rogue", 0o777),
    "shutil.rmtree": lambda: shutil.rmtree("/proc/self/attr"),
    "tempfile.mkdtemp": lambda: tempfile.mkdtemp("nyx-rogue", dir=os.sep),
    "a socket that connects": _connect,
    "a look-up of a name": lambda: socket.getaddrinfo("localhost", 9),
    "urllib.request.urlopen": lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    "subprocess.run": lambda: subprocess.run(["true"], check=True),
    "os.system": _shell,
    "os.execv": lambda: os.execv("/nonexistent/nyx-rogue", ["x"]),
    "os.kill, of the host, with no signal": lambda: os.kill(os.getppid(), 0),
    "the environment of the host": lambda: open(f"/proc/{os.getppid()}/environ").close(),
    "a system call by ctypes": _native_call,
    "a trace function and ptrace, to watch the host": _trace_host,
}
if sys.version_info >= (3, 12):  # earlier versions raise no audit event when a thread starts
    _FUNCTIONS["open(), from a new thread"] = _thread
if hasattr(os, "posix_spawn"):
    _FUNCTIONS["os.posix_spawn"] = lambda: os.posix_spawn("/nonexistent/nyx-rogue", ["x"], {})
if hasattr(os, "killpg"):
    _FUNCTIONS["os.killpg, of the host's group, with no signal"] = lambda: os.killpg(os.getpgid(os.getppid()), 0)
