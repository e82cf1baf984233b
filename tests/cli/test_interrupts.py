"""Ctrl-C ends a command with exit code 130 at any moment, however the command reacts."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from nyx_stream.cli import ExitCode
from nyx_stream.cli.interrupts import run_async
from tests.conformance.machine import missing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")

CODE = """
    import asyncio
    from nyx_stream import Plugin, export
    class Weather(Plugin):
        async def setup(self):
            {setup}
        @export
        async def ticks(self):
            yield "ready"
            {then}
    """
WAIT = "await asyncio.Event().wait()"
REPORT = "self.log.warning('setup begins')"


@pytest.fixture(autouse=True)
def default_handler():
    """Handles interrupts as at a terminal: a shell without job control ignores them for background processes."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(params=["inline", "process"])
def level(request):
    """The isolation level under test."""
    if request.param == "process" and (reason := missing()):
        pytest.skip(f"this machine cannot seal a process: {reason}")
    return request.param


@pytest.fixture
def start(case):
    """Starts `nyx run` in its own process group, as a shell does, with the given plugin code."""

    def start(level, *, setup="pass", then=WAIT):
        case.write("weather.py", CODE.format(setup=setup, then=then))
        command = [sys.executable, "-m", "nyx_stream", "run", case.plugin, "ticks", "--isolation", level]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *case.options()], stdout=pipe, stderr=pipe, text=True, process_group=0)

    return start


def interrupt(process):
    """Interrupts the process group, as a terminal does; returns exit code and stderr."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    return process.returncode, err


def test_during_a_call(start, level):
    """The exit code is 130, without a traceback."""
    with start(level) as process:
        assert process.stdout.readline() == '"ready"\n'
        assert interrupt(process) == (ExitCode.INTERRUPTED, "nyx: interrupted\n")


def test_during_setup(start, level):
    """A plugin that was interrupted while starting is not reported as failed."""
    with start(level, setup=f"{REPORT}; {WAIT}") as process:
        assert "setup begins" in process.stderr.readline()
        assert interrupt(process) == (ExitCode.INTERRUPTED, "nyx: interrupted\n")


def test_a_plugin_that_raises_another_error(start, level):
    """An error that the plugin raises when it is cancelled does not replace the exit code."""
    lines = ("try:", f"    {WAIT}", "finally:", "    raise ValueError('mine')")
    with start(level, then="\n            ".join(lines)) as process:
        assert process.stdout.readline() == '"ready"\n'
        code, err = interrupt(process)
    assert (code, err.splitlines()[-1]) == (ExitCode.INTERRUPTED, "nyx: interrupted")


def test_a_command_that_never_yields():
    """The second interrupt raises at once."""

    async def command():
        os.kill(os.getpid(), signal.SIGINT)
        assert asyncio.current_task().cancelling()
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass

    with pytest.raises(KeyboardInterrupt):
        run_async(command())


def test_before_a_command_begins():
    """An interrupt while the command line is imported has the same exit code."""
    code = """
import sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "nyx_stream.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from nyx_stream.cli import main
sys.exit(main(["demo"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "nyx: interrupted\n")


def test_an_interrupt_that_does_not_wake_the_loop():
    """An interrupt in another thread, or just before the loop sleeps, is noticed at once."""

    async def command():
        def take():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        asyncio.get_running_loop().call_later(0, threading.Thread(target=take).start)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run_async(command())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("outcome", ["result", "error"])
def test_a_command_that_suppresses_its_cancellation(outcome):
    """A command that suppresses its cancellation, or raises another error, still raises KeyboardInterrupt."""

    async def command():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if outcome == "error":
                raise ValueError("another") from None

    with pytest.raises(KeyboardInterrupt):
        run_async(command())


def test_without_an_interrupt_it_behaves_like_asyncio_run():
    """It returns the result or raises the error. Interrupts that are ignored stay ignored."""

    async def fail():
        raise ValueError("its own")

    async def ignore():
        os.kill(os.getpid(), signal.SIGINT)
        return await asyncio.sleep(0, "result")

    assert run_async(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ValueError, match="its own"):
        run_async(fail())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run_async(ignore()) == "result"
