"""A machine that cannot seal: nothing is loaded, unless the policy lets it degrade; then what is missing is on record.

Older kernels are simulated by an outer seccomp filter that answers as they would. Other systems are simulated in the
worker alone, by their own layers on Linux: that shows the host's decisions, and nothing of those systems.
"""

import json
import os
import subprocess
import sys

import pytest

from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.process import launcher as launching
from nyx_stream.isolation.process import seal as sealing
from nyx_stream.isolation.remote.host import required
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
from tests.core.cases_failures import answering

async def main(folder, data, calls, forks):
    process.FORK_IS_SAFE = forks == "fork"
    for call in calls.split(","):
        answering(call, 38)
    events = []
    async with PluginHost(audit=events.append, data_dir=data) as host:
        try:
            await host.load(folder, isolation="process")
        except PluginLoadError as error:
            refused = str(error)
        await host.unload("p")
        plugin = await host.load(folder, isolation="process", policy=SandboxPolicy().allow_degraded())
        tries = await plugin.call("tries")
    told = [(event.allowed, event.reason) for event in events if event.kind == "report"]
    print(json.dumps({"refused": refused, "tries": tries, "told": told}))

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
    """The layer that is missing is named; with degrade = "allow" the others hold, and the audit says which do not."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    calls, lacking, refused = KERNELS[kernel]
    folder = write_plugin(tmp_path / "p", CODE)
    command = [sys.executable, "-c", ON_AN_OLDER_KERNEL, str(folder), str(tmp_path / "data"), calls, made]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "its process cannot be sealed: layer" in told["refused"]
    assert any(f"layer {layer} is unavailable" in told["refused"] for layer in lacking)
    assert 'with degrade = "allow" in its policy it would run without' in told["refused"]
    held = {name for name, answer in told["tries"].items() if answer != "done"}
    assert held == refused | {"descriptor", "files"}
    (allowed, reason), *more = told["told"]
    assert not allowed
    assert not more
    for layer in lacking:
        assert f"{layer} (" in reason


WITHOUT_LIMITS = """
import asyncio, json, sys
from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed
from nyx_stream.policy import SandboxPolicy
from tests.core.cases_failures import answering

async def main(folder, data):
    answering("prlimit64", 38)
    async with PluginHost(data_dir=data) as host:
        policy = SandboxPolicy().allow_degraded().with_limits(call_timeout="300s")
        plugin = await host.load(folder, isolation="process", policy=policy)
        try:
            await plugin.call("spin")
        except PluginCrashed as error:
            print(json.dumps([str(error), type(error.__cause__).__name__, error.__cause__.limit]))

asyncio.run(main(*sys.argv[1:]))
"""


def test_without_limits_of_the_system_the_watch_ends_a_worker(tmp_path):
    """What the kernel would have enforced is looked at every two seconds; the error is of the same kind."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    code = "class Main(Plugin):\n    @export\n    async def spin(self):\n        while True: pass"
    folder = write_plugin(tmp_path / "p", code, limits='cpu_time = "1s"\ncall_timeout = "300s"')
    command = [sys.executable, "-c", WITHOUT_LIMITS, str(folder), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=False)
    assert done.returncode == 0, done.stderr
    told, cause, limit = json.loads(done.stdout)
    assert "it uses more than it was granted and was killed: cpu_time " in told
    assert (cause, limit) == ("LimitExceeded", "cpu_time")


ELSEWHERE = """
import sys
from nyx_core import platforms
from nyx_core.macos.platform import platform
platforms.current_platform = lambda: {platform}
from nyx_core.sandbox import api as doorway
from nyx_stream.isolation.remote.host import required
from nyx_stream.isolation.process import seal as sealing
required.REQUIRED = sealing.REQUIRED = required.required_on({name!r})
"""


def elsewhere(monkeypatch, name, platform):
    """Has workers take themselves to be on another system."""
    without_fork(monkeypatch)
    split = "from importlib import import_module\n"
    before, after = launching.START.split(split)
    monkeypatch.setattr(launching, "START", before + ELSEWHERE.format(name=name, platform=platform) + split + after)
    monkeypatch.setattr(sealing, "REQUIRED", required.required_on(name))


async def test_a_mac_without_seatbelt(load, monkeypatch, events):
    """The layers of macOS but for its lock: refused by its name, or run with limits, environment and descriptors."""
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
    """Nothing is applied, so nothing is loaded; with degrade = "allow" a process of its own is all that there is."""
    elsewhere(monkeypatch, "freebsd14", "None")
    with pytest.raises(PluginLoadError, match="Nyx has no layers for"):
        await load(CODE)
    plugin = await load(CODE, name="other", policy=SandboxPolicy().allow_degraded())
    assert (await plugin.call("tries"))["read"] == "done"
    (event,) = [event for event in events if event.kind == "report"]
    assert not event.allowed
    for name in ("kernel", "descriptors", "environment", "limits"):
        assert f"{name} (not reported)" in event.reason


def test_what_each_system_must_have():
    """Every system has the layers that are the same everywhere and a lock of its own; an unknown one can have none."""
    for platform, lock in (
        ("linux", "seccomp"),
        ("darwin", "seatbelt"),
        ("openbsd7", "pledge"),
        ("freebsd14", "kernel"),
    ):
        assert required.required_on(platform) >= {"descriptors", "environment", "limits", lock}
