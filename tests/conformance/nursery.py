"""Interpreters that are there already, for zygotes and workers: half a second less for each host of a test.

A process that has imported the framework, and nothing else, forks what `subprocess.Popen` would have started: a child
of this process, not of the nursery, with its own session, descriptors and folder, which runs the same `main`. Linux
only. Rooms that are about how processes come about (tests/isolation/process) do without.
"""

import json
import os
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest

from nyx_stream.isolation.process import spawn as launching

_MODULE = 6
"""Where the module stands in `launching.command`; the descriptor and the pid of the host follow."""

_SERVE = """
import ctypes, fcntl, json, os, platform, socket, sys
from importlib import import_module
from nyx_stream.isolation.process import bootstrap

CLONE_PARENT, SIGCHLD = 0x8000, 17
NUMBER = {"x86_64": 56, "aarch64": 220}[platform.machine()]

def fork():
    # As os.fork, but for the child's parent: it is the nursery's own, who can wait for it.
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = ctypes.pythonapi.syscall(NUMBER, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)
    (ctypes.pythonapi.PyOS_AfterFork_Parent if pid else ctypes.pythonapi.PyOS_AfterFork_Child)()
    return pid

def live(module, descriptor, host, descriptors):
    os.setsid()
    os.chdir("/")
    # First out of the way: what was received may stand where another is to go.
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, descriptor + 1) for number in descriptors]
    for number, target in zip(high, (0, 1, 2, descriptor), strict=True):
        os.dup2(number, target)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 4096)
    import_module(module).main(descriptor, host)

bootstrap.import_libraries()
link = socket.socket(fileno=int(sys.argv[2]))
while True:
    order, received, _, _ = socket.recv_fds(link, 4096, 4)
    if not order:
        os._exit(0)
    pid = fork()
    if pid == 0:
        status = 1
        try:
            live(*json.loads(order), received)
            status = 0
        except SystemExit as error:
            status = error.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(status)
    for number in received:
        os.close(number)
    link.send(str(pid).encode())
"""


class Nursery:
    """The nursery of one run of the tests."""

    def __init__(self) -> None:
        self._link, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = launching.command("nowhere", remote.fileno())
        command[_MODULE - 1] = launching.START.rpartition("\nfrom importlib")[0] + _SERVE
        self._expected = launching.START, launching.environment()
        with remote:
            self._process = subprocess.Popen(
                command,
                env=launching.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(remote.fileno(),),
                start_new_session=True,
            )

    def close(self) -> None:
        self._link.close()
        self._process.wait()

    def fork(
        self, command: list[str], *, stdout: int, stderr: int, pass_fds: tuple[int, ...], env: dict[str, str]
    ) -> int:
        """Forks what `command` of the framework would start; returns its pid."""
        assert (command[_MODULE - 1], env) == self._expected
        (descriptor,) = pass_fds
        module, given, host = command[_MODULE : _MODULE + 3]
        assert (int(given), int(host)) == (descriptor, os.getpid())
        nothing = os.open(os.devnull, os.O_RDWR)
        wanted = [nothing, nothing if stdout == subprocess.DEVNULL else stdout, stderr, descriptor]
        try:
            socket.send_fds(self._link, [json.dumps([module, descriptor, int(host)]).encode()], wanted)
            return int(self._link.recv(64))
        finally:
            os.close(nothing)


class Forked(subprocess.Popen):
    """A child of this process that somebody else has made."""

    def __init__(self, pid: int, command: list[str]) -> None:
        self.pid, self.args, self.returncode = pid, command, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()


@pytest.fixture(autouse=True)
def ready(interpreters: None) -> None:
    """Has it so in a whole room, whose `conftest.py` imports this."""


@pytest.fixture
def interpreters(nursery: Nursery | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has zygotes and workers forked from the nursery."""
    if nursery is None:
        return

    def start(command, *, stdin, stdout, stderr, cwd, env, pass_fds, start_new_session):
        assert (stdin, cwd, start_new_session) == (subprocess.DEVNULL, "/", True)
        pid = nursery.fork(command, stdout=stdout, stderr=stderr, pass_fds=pass_fds, env=env)
        return Forked(pid, command)

    stand_in = SimpleNamespace(**{**vars(subprocess), "Popen": start})
    monkeypatch.setattr(launching, "subprocess", stand_in)
