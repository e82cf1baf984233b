"""On a machine that can't seal, a plugin loads only if its policy lets it degrade; what is missing is recorded.

Older kernels are simulated by an outer seccomp filter that answers as they would. Other systems are simulated only in
the worker, by their own layers on Linux: that tests the host's decisions, not those systems.
"""

import json
import os
import subprocess
import sys

import pytest

from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.process import spawn
from nyx_stream.isolation.remote.host import handshake
from nyx_stream.isolation.remote.wire import confinement
from nyx_stream.policy import SandboxPolicy
from tests.conformance.machine import missing, without_fork
from tests.plugin_fixtures import write_plugin

CODE = """
    import os, resource, socket

    class Main(Plugin):
        @export
        async def tries(self) -> dict[str, str]:
            return {name: trial(act) for name, act in ACTS.items()}

    def trial(act):
        try: act()
        except Exception as error: return type(error).__name__
        return "done"

    ACTS = {
        "read": lambda: open("/etc/passwd").close(),
        "write": lambda: os.remove(os.open("/tmp/nyx-degraded", os.O_CREAT | os.O_WRONLY) and "/tmp/nyx-degraded"),
        "socket": lambda: socket.socket().close(),
        "fork": lambda: os.waitpid(os.fork() or os._exit(0), 0),
        "descriptor": lambda: os.fstat(9),
        "files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
    }
    """

ON_AN_OLDER_KERNEL = """
import asyncio, json, sys
from nyx_stream import PluginHost
from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.process import backend as process
from nyx_stream.policy import SandboxPolicy
from tests.core.cases_failures import make_call_fail

async def main(folder, data, calls, forks):
    process.FORK_IS_SAFE = forks == "fork"
    for call in calls.split(","):
        make_call_fail(call, 38)
    events = []
    async with PluginHost(audit=events.append, data_dir=data) as host:
        try:
            await host.load(folder, isolation="process")
        except PluginLoadError as error:
            refused = str(error)
        await host.unload("p")
        plugin = await host.load(folder, isolation="process", policy=SandboxPolicy().allow_degraded())
        tries = await plugin.call("tries")
    results = [(event.allowed, event.reason) for event in events if event.kind == "report"]
    print(json.dumps({"refused": refused, "tries": tries, "events": results}))

asyncio.run(main(*sys.argv[1:]))
"""

KERNELS = {
    "no landlock": ("landlock_create_ruleset", {"landlock"}, {"write", "socket", "fork"}),
    "no seccomp": ("seccomp", {"seccomp"}, {"read", "write"}),
    "neither": ("landlock_create_ruleset,seccomp", {"landlock", "seccomp"}, set()),
}


@pytest.mark.parametrize("made", ["fork", "fresh"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_older_kernel(tmp_path, kernel, made):
    """The missing layer is named; with degrade = "allow" the others hold, and the audit event names what is missing."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    calls, lacking, refused = KERNELS[kernel]
    folder = write_plugin(tmp_path / "p", CODE)
    command = [sys.executable, "-c", ON_AN_OLDER_KERNEL, str(folder), str(tmp_path / "data"), calls, made]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert "its process cannot be sealed: layer" in results["refused"]
    assert any(f"layer {layer} is unavailable" in results["refused"] for layer in lacking)
    assert 'with degrade = "allow" in its policy it would run without' in results["refused"]
    held = {name for name, answer in results["tries"].items() if answer != "done"}
    assert held == refused | {"descriptor", "files"}
    (allowed, reason), *more = results["events"]
    assert not allowed
    assert not more
    for layer in lacking:
        assert f"{layer} (" in reason


WITHOUT_LIMITS = """
import asyncio, json, sys
from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed
from nyx_stream.policy import SandboxPolicy
from tests.core.cases_failures import make_call_fail

async def main(folder, data):
    make_call_fail("prlimit64", 38)
    async with PluginHost(data_dir=data) as host:
        policy = SandboxPolicy().allow_degraded().with_limits(call_timeout="300s")
        plugin = await host.load(folder, isolation="process", policy=policy)
        try:
            await plugin.call("spin")
        except PluginCrashed as error:
            print(json.dumps([str(error), type(error.__cause__).__name__, error.__cause__.limit]))

asyncio.run(main(*sys.argv[1:]))
"""


def test_without_the_systems_limits_the_monitor_ends_a_worker(tmp_path):
    """The resource monitor checks what the kernel would have enforced; the error is of the same kind."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    code = "class Main(Plugin):\n    @export\n    async def spin(self):\n        while True: pass"
    folder = write_plugin(tmp_path / "p", code, limits='cpu_time = "1s"\ncall_timeout = "300s"')
    command = [sys.executable, "-c", WITHOUT_LIMITS, str(folder), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=False)
    assert done.returncode == 0, done.stderr
    results, cause, limit = json.loads(done.stdout)
    assert "it uses more than it was granted and was killed: cpu_time " in results
    assert (cause, limit) == ("LimitExceeded", "cpu_time")


ELSEWHERE = """
import sys
from nyx_core.sandbox import platform as platform_module
from nyx_core.macos.platform import platform
platform_module.current_platform = lambda: {platform}
from nyx_core.sandbox import api
from nyx_stream.isolation.remote.wire import confinement
from nyx_stream.isolation.remote.worker import seal
confinement.REQUIRED_LAYERS = seal.REQUIRED_LAYERS = confinement.required_layers({name!r})
"""


def elsewhere(monkeypatch, name, platform):
    """Makes workers believe that they run on another system."""
    without_fork(monkeypatch)
    split = "from importlib import import_module\n"
    before, after = spawn.START.split(split)
    monkeypatch.setattr(spawn, "START", before + ELSEWHERE.format(name=name, platform=platform) + split + after)
    for module in (confinement, handshake):
        monkeypatch.setattr(module, "REQUIRED_LAYERS", confinement.required_layers(name))


async def test_a_mac_without_seatbelt(load, monkeypatch, events):
    """The layers of macOS without its main one: refused by name, or run with limits, environment and descriptors."""
    elsewhere(monkeypatch, "darwin", "platform()")
    with pytest.raises(PluginLoadError, match="layer seatbelt is unavailable"):
        await load(CODE)
    plugin = await load(CODE, name="other", policy=SandboxPolicy().allow_degraded())
    tries = await plugin.call("tries")
    assert {name for name, answer in tries.items() if answer != "done"} == {"descriptor", "files"}
    (event,) = [event for event in events if event.kind == "report"]
    assert (event.plugin, event.allowed) == ("other", False)
    assert "seatbelt (" in event.reason


async def test_a_system_without_any_layers(load, monkeypatch, events):
    """Nothing is applied, so nothing loads; with degrade = "allow" the plugin merely has its own process."""
    elsewhere(monkeypatch, "freebsd14", "None")
    with pytest.raises(PluginLoadError, match="Nyx has no layers for"):
        await load(CODE)
    plugin = await load(CODE, name="other", policy=SandboxPolicy().allow_degraded())
    assert (await plugin.call("tries"))["read"] == "done"
    (event,) = [event for event in events if event.kind == "report"]
    assert not event.allowed
    for name in ("kernel", "descriptors", "environment", "limits"):
        assert f"{name} (not reported)" in event.reason


def test_required_layers_of_each_system():
    """Every system requires the common layers and one of its own; an unknown system can't satisfy that."""
    for platform, lock in (
        ("linux", "seccomp"),
        ("darwin", "seatbelt"),
        ("openbsd7", "pledge"),
        ("freebsd14", "kernel"),
    ):
        assert confinement.required_layers(platform) >= {"descriptors", "environment", "limits", lock}
