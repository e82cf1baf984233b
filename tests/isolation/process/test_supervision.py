"""Whatever ends a worker, its callers get a typed error, its host continues, and nothing is left behind."""

import asyncio
import logging
import os
import signal

import psutil
import pytest

from nyx_stream.errors import (
    LimitExceeded,
    PluginCallError,
    PluginCrashed,
    PluginLoadError,
    PluginSetupError,
    PluginTimeout,
)
from nyx_stream.host import State
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import backend_of, until

CODE = """
    import asyncio, ctypes, os, resource, signal, sys, threading, time

    class Main(Plugin):
        @export
        async def pid(self) -> int: return os.getpid()
        @export
        async def ping(self) -> str: return "pong"
        @export
        async def hang(self): await asyncio.Event().wait()
        @export
        async def kill(self, number: int):
            print("last words", file=sys.stderr)
            print("and more \\x1b[31m", file=sys.stderr, end="", flush=True)
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        @export
        async def fault(self): ctypes.string_at(0)
        @export
        async def exit(self, status: int): os._exit(status)
        @export
        async def raise_exit(self):
            asyncio.get_running_loop().call_soon(sys.exit, 7)
            await asyncio.Event().wait()
        @export
        async def spin(self):
            while True: pass
        @export
        async def spin_on(self):
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            while True: pass
        @export
        async def stubborn(self):
            while True:
                try: await asyncio.Event().wait()
                except asyncio.CancelledError: pass
        @export
        async def send(self, data: bytes):
            os.write(3, data)
            await asyncio.Event().wait()
        @export
        async def close(self):
            os.close(3)
            await asyncio.Event().wait()
        @export
        async def allocate(self, size: int) -> int: return len(bytearray(size))
        @export
        async def threads(self, number: int) -> int:
            done = threading.Event()
            started = []
            try:
                for _ in range(number):
                    thread = threading.Thread(target=done.wait, daemon=True)
                    thread.start()
                    started.append(thread)
            finally:
                done.set()
            return len(started)
        @export
        async def descriptors(self) -> int:
            held = []
            try:
                while True: held.append(os.dup(0))
            except OSError:
                return len(held)
            finally:
                for descriptor in held: os.close(descriptor)
        @export
        async def flood(self, lines: int):
            for number in range(lines):
                self.log.info("line %d", number)
        @export
        async def shout(self, lines: int):
            for number in range(lines):
                print("line", number)
    """


async def wait_for_state(handle, state=State.FAILED):
    """Waits for a state."""
    async with asyncio.timeout(20):
        await until(lambda: handle.state is state)


ENDS = {
    "signal": ("kill", {"number": signal.SIGKILL}, "its process was killed by SIGKILL"),
    "fault": ("fault", {}, "its process was killed by SIGSEGV"),
    "exit": ("exit", {"status": 3}, "its process ended with exit status 3"),
    "leave": ("raise_exit", {}, "its process ended with exit status"),
    "close": ("close", {}, "its process "),  # killed, or gone before that because it had no channel any more
    "garbage": ("send", {"data": b"GET / HTTP/1.1\r\n\r\n"}, "it broke the protocol and was killed: protocol version"),
    "huge": ("send", {"data": bytes.fromhex("ffffffff 01 00 0202 0000 00000001")}, "over its limit"),
    "unasked": ("send", {"data": bytes.fromhex("00000000 01 00 0202 0000 00000099")}, "which is not under way"),
    "host's": ("send", {"data": bytes.fromhex("00000000 01 00 0303 0000 00000000")}, "is not the peer's to send"),
    "failed how": (
        "send",
        {"data": bytes.fromhex("00000001 01 00 0401 0000 00000003 7b")},
        "of FAILED is not a valid RemoteFault",
    ),
    "no json": (
        "send",
        {"data": bytes.fromhex("00000001 01 00 0206 0000 00000001 7b")},
        "the body of REQUEST is not a valid CapabilityRequest",
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_of_a_worker_is_a_typed_error(load, end, tmp_path):
    """A signal, a fault, an exit, a closed or abused channel: every caller gets PluginCrashed with the reason."""
    method, arguments, text = ENDS[end]
    plugin = await load(CODE)
    other = await load(CODE, name="other")
    pid = await plugin.call("pid")
    waiting = asyncio.create_task(plugin.call("hang"))
    with pytest.raises(PluginCrashed) as caught:
        await plugin.call(method, **arguments)
    assert text in str(caught.value)
    if end == "signal":
        assert "the last lines of its stderr:\n    last words\n    and more \\u001b[31m" in str(caught.value)
    with pytest.raises(PluginCrashed):
        await waiting
    await wait_for_state(plugin)
    assert text in plugin.status.error
    assert not psutil.pid_exists(pid)
    assert await other.call("ping") == "pong"


async def test_a_call_that_ignores_its_cancellation_has_its_worker_killed(load):
    """A busy loop, or a coroutine that swallows its cancellation: the caller gets its timeout."""
    for method in ("spin", "stubborn"):
        plugin = await load(CODE, name=method, limits='call_timeout = "200ms"')
        with pytest.raises(PluginTimeout):
            await plugin.call(method)
        await wait_for_state(plugin)
        assert f"it ignored the cancellation of {method} for 1 s and was killed" in plugin.status.error


async def test_a_worker_that_dies_while_it_starts(load):
    """If it ends during import or setup, loading raises an error with the last lines of its output."""
    code = "import os, sys\nprint('no way', file=sys.stderr, flush=True)\nos._exit(5)"
    with pytest.raises(PluginLoadError, match=r"its process ended with exit status 5; the last lines.*\n    no way"):
        await load(code)
    code = "import os\nclass Main(Plugin):\n    async def setup(self): os.kill(os.getpid(), 9)"
    with pytest.raises(PluginLoadError, match="its process was killed by SIGKILL"):
        await load(code, name="other")
    with pytest.raises(PluginSetupError, match="setup took longer than 1 s"):
        await load("while True: pass", name="third", limits='setup_timeout = "1s"')


async def test_an_invalid_result_type_is_an_error_of_the_load(load):
    """A description that the host can't build a decoder from breaks the protocol."""
    code = """
        from nyx_stream.isolation.remote.worker import main as worker

        worker.describe_type = lambda _type: ["tuple", "nothing that the host knows"]

        class Main(Plugin):
            @export
            async def ping(self): ...
    """
    with pytest.raises(PluginLoadError, match="it broke the protocol: an unknown result type"):
        await load(code)


@pytest.mark.parametrize("caught", [False, True])
async def test_processor_time_is_limited(load, caught):
    """A plugin that has used up its processor time is ended: the caller learns which limit it was."""
    patient = SandboxPolicy().with_limits(call_timeout="300s")  # a machine that is busy gives a spin little time
    plugin = await load(CODE, limits='cpu_time = "1s"\ncall_timeout = "300s"', policy=patient)
    other = await load(CODE, name="other")
    method = "spin_on" if caught else "spin"
    with pytest.raises(PluginCrashed) as raised:
        await plugin.call(method)
    await wait_for_state(plugin)
    if not caught:  # a process that ignores the signal is killed a second later, by the kernel or the monitor
        assert "it used up its cpu_time of 1 s" in str(raised.value)
        cause = raised.value.__cause__
        assert isinstance(cause, LimitExceeded)
        assert (cause.limit, cause.allowed) == ("cpu_time", 1)
    assert await other.call("ping") == "pong"


async def test_limits_of_the_grant_hold(load):
    """Memory counts on top of what the worker itself needs; beyond the limit an allocation fails and the plugin
    continues."""
    plugin = await load(CODE, limits='memory = "64MiB"\nopen_files = 20')
    assert await plugin.call("allocate", size=32 * 2**20) == 32 * 2**20
    with pytest.raises(PluginCallError, match="allocate raised MemoryError"):
        await plugin.call("allocate", size=96 * 2**20)
    assert await plugin.call("threads", number=32) == 32
    assert 15 <= await plugin.call("descriptors") <= 30
    assert await plugin.call("ping") == "pong"


async def test_a_flood_of_output_and_logs_is_rate_limited(load, caplog):
    """Every printed line arrives, slowly; log records arrive as far as they fit, and the others are counted."""
    caplog.set_level(logging.INFO, logger="nyx.plugin.p")
    plugin = await load(CODE)
    await plugin.call("shout", lines=300)
    await plugin.call("flood", lines=2000)
    assert await plugin.call("ping") == "pong"
    async with asyncio.timeout(30):
        await until(lambda: "records were dropped: the host takes no more" in caplog.text)
        await until(lambda: "stdout: line 299" in caplog.text)
    said = [record.getMessage() for record in caplog.records if record.name == "nyx.plugin.p"]
    assert [line for line in said if line.startswith("stdout")] == [f"stdout: line {n}" for n in range(300)]
    logged = [line for line in said if line.startswith("line")]
    assert logged == [f"line {n}" for n in range(len(logged))]
    assert f"{2000 - len(logged)} records were dropped" in caplog.text


async def test_a_zygote_that_dies_is_replaced(load, host):
    """Its workers die with it, with an error that says so; the next plugin gets a new zygote."""
    plugin = await load(CODE)
    zygote = backend_of(host).processes
    before = zygote.pid
    os.kill(before, signal.SIGKILL)
    with pytest.raises(PluginCrashed, match="its process ended together with its parent"):
        await plugin.call("hang")
    await wait_for_state(plugin)
    other = await load(CODE, name="other")
    assert await other.call("ping") == "pong"
    assert zygote.pid not in (None, before)


async def test_on_fail_restart_after_a_kill(load, monkeypatch):
    """A worker that is killed is replaced by a new process."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    plugin = await load(CODE, on_fail="restart")
    first = await plugin.call("pid")
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(20):
        await until(lambda: plugin.stats().restarts == 1 and plugin.state is State.RUNNING)
    assert await plugin.call("pid") != first


def test_workers_and_zygote_die_with_their_host(make, tmp_path):
    """A host that is killed leaves no process behind, not even a worker that spins."""
    import subprocess
    import sys

    folder = make("p", CODE)
    script = f"""
import asyncio
from nyx_stream import PluginHost
from tests.plugin_fixtures import backend_of

async def main():
    async with PluginHost(data_dir={str(tmp_path / "data")!r}) as host:
        plugin = await host.load({str(folder)!r}, isolation="process")
        print(await plugin.call("pid"), backend_of(host).processes.pid, flush=True)
        await plugin.call("spin")

asyncio.run(main())
"""
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    processes = [psutil.Process(pid) for pid in pids]
    host.kill()
    host.wait()
    host.stdout.close()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
