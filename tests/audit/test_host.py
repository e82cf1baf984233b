"""A host and its log: what is recorded, how the host file configures it, and what a full disk does to plugins."""

import subprocess
import sys

import pytest

from nyx_stream import PluginHost
from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.audit.log import AuditOptions
from nyx_stream.errors import PolicyError
from nyx_stream.host.config import read_config
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import write_plugin

CODE = """
class Main(Plugin):
    @export
    async def ping(self) -> str: return "pong"
    @export
    async def exists(self) -> bool: return await self.files.exists("x")
"""


@pytest.fixture
def plugin(tmp_path):
    """A plugin that may read its data directory."""
    return write_plugin(tmp_path / "plugins" / "p", CODE, permissions='write = ["$DATA"]')


GRANT = SandboxPolicy.locked_down().allow_path_prefix("$DATA")


async def test_each_kind_of_action_is_recorded(plugin, tmp_path):
    """Loading, a decision, a policy change, a revocation and unloading have one record each, and the log verifies."""
    path = tmp_path / "audit.jsonl"
    async with PluginHost(audit=path, data_dir=tmp_path / "data") as host:
        handle = await host.load(plugin, policy=GRANT)
        await handle.call("exists")
        await handle.update_policy(GRANT.deny_path_prefix("$DATA/secret"))
        await handle.revoke("files", reason="incident 42")
        await host.unload("p")
    recorded = [(event.kind, event.action) for event in read_log(path)]
    assert recorded[:3] == [("lifecycle", "load"), ("decision", "stat"), ("policy", "update_policy")]
    assert ("revocation", "revoke") in recorded
    assert recorded[-1] == ("lifecycle", "unload")
    found = verify(path)
    assert (found.fault, found.sealed) == (None, True)


async def test_a_log_that_was_passed_in_is_not_closed(plugin, tmp_path):
    """A host writes to an AuditLog that it is given and does not close it, so two hosts may share one."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path, fsync="each", key=b"k" * 16) as log:
        for _ in range(2):
            async with PluginHost(audit=log, data_dir=tmp_path / "data") as host:
                await host.load(plugin)
        await log.aflush()
    assert [event.action for event in read_log(path)] == ["load", "load"]
    assert verify(path, key=b"k" * 16).fault is None


def test_a_host_file_configures_the_log(tmp_path):
    """Every option has its key; a string is the file alone."""
    (tmp_path / "key").write_bytes(b"k" * 32 + b"\n")
    file = tmp_path / "nyx.toml"
    file.write_text(
        """
        [audit]
        file = "audit.jsonl"
        fsync = "each"
        sync_interval = "250ms"
        segment = "1MiB"
        when_full = "stop-plugins"
        key_file = "key"
        queries = "keep"
        """
    )
    config = read_config(file)
    assert config.audit == str(tmp_path / "audit.jsonl")
    assert config.audit_options == AuditOptions(
        fsync="each",
        sync_interval=0.25,
        segment_bytes=1 << 20,
        when_full="stop-plugins",
        key=b"k" * 32,
        keep_queries=True,
    )
    file.write_text('audit = "audit.jsonl"')
    assert read_config(file).audit == str(tmp_path / "audit.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('fsync = "often"', "fsync"),
        ('segment = "10B"', "at least 4096 bytes"),
        ('segment = "much"', "isn't a size"),
        ('sync_interval = "0s"', "greater than zero"),
        ('key_file = "nowhere"', "can't be read"),
        ('key_file = "nyx.toml"', "16 to 64 bytes"),
        ("compress = true", "compress"),
    ],
)
def test_a_wrong_option_is_reported_with_its_line(tmp_path, line, message):
    """The error names file, line and option."""
    (tmp_path / "nyx.toml").write_text(f'[audit]\nfile = "audit.jsonl"\n{line}\n# {"x" * 80}\n')
    with pytest.raises(PolicyError, match=rf"nyx\.toml:3: .*{message}"):
        read_config(tmp_path / "nyx.toml")


FULL = """
import asyncio, resource, signal, sys
from nyx_stream import PluginHost
from nyx_stream.audit import AuditLog
from nyx_stream.errors import NyxError
from nyx_stream.policy import SandboxPolicy

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def attempt(call):
    try:
        print(await call)
    except NyxError as error:
        print(type(error).__name__, error)

async def main(path, data, plugin):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    failing = asyncio.Event()
    loop = asyncio.get_running_loop()
    log = AuditLog.open(
        path, when_full="stop-plugins", on_failure=lambda error: loop.call_soon_threadsafe(failing.set)
    )
    grant = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
    async with PluginHost(audit=log, data_dir=data) as host:
        handle = await host.load(plugin, policy=grant)
        await log.aflush()
        limit(1)
        await attempt(handle.call("exists"))
        await failing.wait()
        while handle.state != "failed":  # the host is notified right after this watcher
            await asyncio.sleep(0)
        await attempt(handle.call("ping"))
        await attempt(host.load(plugin))
        limit(resource.RLIM_INFINITY)
        while True:
            try:
                await log.aflush()
                break
            except NyxError:
                pass
        handle = await host.load(plugin)
        await attempt(handle.call("ping"))
    await log.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the full disk is made by RLIMIT_FSIZE")
def test_a_full_disk_stops_the_plugins_until_it_has_space(plugin, tmp_path):
    """With stop-plugins, the plugin fails with the reason and none starts; with space, it loads. No event is lost."""
    path = tmp_path / "audit.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(tmp_path / "data"), str(plugin)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found, stopped, refused, again = done.stdout.splitlines()
    # The log writes the event while the call runs, so it may fail and stop the plugin before the call returns.
    assert found in ("False", "True", "PluginCrashed p: it failed during the call")
    assert stopped.startswith("PluginCrashed p: it has failed: p: stopped: audit log")
    assert "takes no events: [Errno 27] File too large" in stopped
    assert refused.startswith("PluginStateError p: not started: audit log")
    assert again == "pong"
    actions = [event.action for event in read_log(path)]
    assert actions[:3] == ["load", "stat", "run"]
    assert actions[-1] == "load"
    assert verify(path).fault is None
