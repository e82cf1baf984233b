"""Plugin code that starts processes, calls native code or changes the interpreter is refused and recorded."""

import asyncio
import os
import re
import subprocess
import sys

import pytest

ATTACKS = {
    "subprocess.run": ("subprocess.run(['/bin/true'])", "process", "subprocess.Popen"),
    "subprocess shell": ("subprocess.check_output('true', shell=True)", "process", "subprocess.Popen"),
    "asyncio subprocess": ("await asyncio.create_subprocess_exec('/bin/true')", "process", None),
    "os.system": ("os.system('true')", "process", "os.system"),
    "os.popen": ("os.popen('true')", "process", "subprocess.Popen"),
    "os.execv": ("os.execv('/bin/true', ['true'])", "process", "os.exec"),
    "os.fork": ("os.fork()", "process", "os.fork"),
    "os.forkpty": ("os.forkpty()", "process", "os.forkpty"),
    "os.posix_spawn": ("os.posix_spawn('/bin/true', ['true'], {})", "process", "os.posix_spawn"),
    "os.kill": ("os.kill(os.getpid(), 0)", "process", "os.kill"),
    "environment": ("os.environ['NYX_TEST_LEAK'] = '1'", "process", "os.putenv"),
    "multiprocessing": (
        "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()",
        "process",
        "os.fork",
    ),
    "pty.spawn": ("import pty\npty.spawn('/bin/true')", "process", "pty.spawn"),
    "resource": ("import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))", "process", "resource.setrlimit"),
    "ctypes library": ("import ctypes\nctypes.CDLL(None)", "native", "ctypes.dlopen"),
    "ctypes memory": ("import ctypes\nctypes.string_at(id(self), 8)", "native", None),
    "ctypes object": ("import ctypes\nctypes.c_char.from_address(id(self))", "native", "ctypes.cdata"),
    "trace": ("sys.settrace(print)", "interpreter", "sys.settrace"),
    "profile": ("sys.setprofile(print)", "interpreter", "sys.setprofile"),
    "frames of all threads": ("sys._current_frames()", "interpreter", "sys._current_frames"),
    "objects of the host": ("import gc\ngc.get_objects()", "interpreter", "gc.get_objects"),
    "referrers": ("import gc\ngc.get_referrers(self)", "interpreter", "gc.get_referrers"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_leaving_the_interpreter_is_refused_and_recorded(rogue, name):
    """Plugin code starts no process, calls no native function and sets no hook."""
    code, capability, action = ATTACKS[name]
    for function in re.findall(r"\bos\.(\w+)", code):
        if not hasattr(os, function):
            pytest.skip(f"this platform has no os.{function}")
    if action is None:
        with pytest.raises(Exception, match="denied"):
            await rogue.run(code)
        assert rogue.denied[-1].layer == "tripwire"
    else:
        await rogue.refused(code, capability, action)
    assert "NYX_TEST_LEAK" not in os.environ


async def test_an_audit_hook_is_not_added(rogue):
    """A hook of the plugin would see the whole host; CPython drops it without an error when ours refuses it."""
    await rogue.run("self.seen = []\nsys.addaudithook(lambda event, args: self.seen.append(event))")
    (event,) = rogue.denied
    assert (event.capability, event.action) == ("interpreter", "sys.addaudithook")
    sys.audit("nyx.test")
    assert await rogue.run("return self.seen") == "[]"


async def test_the_host_starts_processes_while_a_plugin_is_loaded(rogue):
    """The host's own processes start."""
    assert (await asyncio.to_thread(subprocess.run, [sys.executable, "-c", ""])).returncode == 0
    assert not rogue.denied
