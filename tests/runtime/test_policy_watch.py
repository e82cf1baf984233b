"""A watched policy file: for every way of writing it, the complete new policy applies, or the old one stays."""

import asyncio
import builtins
import logging
import os
import threading

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PolicyError, WatchUnavailable
from nyx_stream.host import State
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import until
from tests.policy.special import SPECIAL

CODE = """
    import asyncio
    class Main(Plugin):
        @export
        async def ping(self) -> str: return "pong"
        @export
        async def crash(self): self.spawn(self.explode())
        async def explode(self): raise ValueError
    """
ONE = '[allow]\nconnect = ["one.example"]\n'
TWO = '[allow]\nconnect = ["two.example"]\n'


@pytest.fixture
def file(tmp_path):
    """The policy file, alone in its folder."""
    path = tmp_path / "policies" / "policy.toml"
    path.parent.mkdir()
    path.write_text(ONE)
    return path


@pytest.fixture
async def plugin(host, make, file):
    """A plugin whose policy file is watched."""
    return await host.load(make("p", CODE, permissions='connect = ["*.example.com"]'), policy=file, watch=True)


def granted(plugin) -> list[str]:
    return [rule.text for rule in plugin.grant.policy.connect]


async def comes(condition) -> None:
    async with asyncio.timeout(20):
        await until(condition)


def policies(events):
    return [(event.allowed, event.reason) for event in events if event.kind == "policy"]


def write_in_place(path, text):
    path.write_text(text)


def replace_by_rename(path, text):
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def keep_a_backup(path, text):
    path.rename(path.with_suffix(".bak"))
    path.write_text(text)


def delete_and_create(path, text):
    path.unlink()
    path.write_text(text)


def write_again_and_again(path, text):
    for number in range(20):
        path.write_text(f"# {number}\n{ONE}")
    path.write_text(text)


WAYS = [write_in_place, replace_by_rename, keep_a_backup, delete_and_create, write_again_and_again]


@pytest.mark.parametrize("write", WAYS)
async def test_what_is_written_comes_in_force(plugin, file, events, write):
    """In every way in which editors write a file; each change is recorded as a change of the policy."""
    assert granted(plugin) == ["one.example"]
    write(file, TWO)
    await comes(lambda: granted(plugin) == ["two.example"])
    assert policies(events)[-1] == (True, "its file has changed")
    write(file, ONE)
    await comes(lambda: granted(plugin) == ["one.example"])
    assert await plugin.call("ping") == "pong"


async def test_a_wrong_file_leaves_the_old_policy_in_force_and_says_so(plugin, file, events, caplog):
    """Each wrong content is logged and audited once, with file and line. The next valid one is applied."""
    file.write_text("[allow]\nconnect = [3]\n")
    await comes(lambda: policies(events))
    allowed, reason = policies(events)[0]
    assert not allowed
    assert "policy.toml:2" in reason
    assert "plugin p: the old policy stays in force" in caplog.text
    assert [record.levelno for record in caplog.records if record.name == "nyx.host"] == [logging.ERROR]
    assert granted(plugin) == ["one.example"]
    file.unlink()
    await comes(lambda: len(policies(events)) == 2)
    assert "No such file" in policies(events)[1][1]
    file.write_text(TWO)
    await comes(lambda: granted(plugin) == ["two.example"])
    assert [allowed for allowed, _ in policies(events)] == [False, False, True]


async def test_a_credential_that_cannot_be_had_leaves_the_old_policy(plugin, file, events):
    """A policy is checked whole before anything of it is in force."""
    file.write_text(
        TWO + '[[credentials]]\nrule = "https://two.example"\nheader = "Authorization"\nvalue = "env:NYX_UNSET"\n'
    )
    await comes(lambda: policies(events))
    assert policies(events)[0][0] is False
    assert granted(plugin) == ["one.example"]


@pytest.mark.parametrize("kind", SPECIAL)
async def test_what_is_no_regular_file_leaves_the_old_policy(plugin, file, events, kind):
    """A pipe doesn't block the watch: it is reported at once, and the next file is applied."""
    file.unlink()
    await comes(lambda: policies(events))
    SPECIAL[kind](file)
    await comes(lambda: len(policies(events)) == 2)
    assert "not a regular file" in policies(events)[1][1]
    assert granted(plugin) == ["one.example"]
    file.rename(file.with_suffix(".odd"))
    file.write_text(TWO)
    await comes(lambda: granted(plugin) == ["two.example"])


async def test_the_same_content_changes_nothing(plugin, file, events):
    """Touching the file, or writing the same content, isn't a change."""
    await asyncio.sleep(0)
    file.write_text(ONE)
    os.utime(file)
    file.write_text(TWO)
    await comes(lambda: granted(plugin) == ["two.example"])
    assert len(policies(events)) == 1


async def test_a_file_behind_links_is_followed(host, make, tmp_path, events):
    """Redirecting a link to another folder, as configuration mounts do, is a change."""
    mount = tmp_path / "mount"
    for name, text in (("v1", ONE), ("v2", TWO)):
        (mount / name).mkdir(parents=True)
        (mount / name / "policy.toml").write_text(text)
    (mount / "data").symlink_to("v1")
    (mount / "policy.toml").symlink_to("data/policy.toml")
    plugin = await host.load(make("p", CODE), policy=mount / "policy.toml", watch=True)
    (mount / "next").symlink_to("v2")
    (mount / "next").replace(mount / "data")
    await comes(lambda: granted(plugin) == ["two.example"])
    (mount / "v2" / "policy.toml").write_text(ONE)
    await comes(lambda: granted(plugin) == ["one.example"])


async def test_a_folder_that_is_replaced_is_followed(plugin, file):
    """The folder that is there now counts, not the one that was there."""
    file.parent.rename(file.parent.with_name("old"))
    file.parent.mkdir()
    file.write_text(TWO)
    await comes(lambda: granted(plugin) == ["two.example"])
    file.write_text(ONE)
    await comes(lambda: granted(plugin) == ["one.example"])


async def test_a_file_that_changed_while_the_plugin_was_loaded_is_taken(host, make, file, monkeypatch):
    """A change between reading the file and watching it isn't missed."""
    start = host._starter.load

    async def load(entry):
        file.write_text(TWO)
        await start(entry)

    monkeypatch.setattr(host._starter, "load", load)
    plugin = await host.load(make("p", CODE), policy=file, watch=True)
    await comes(lambda: granted(plugin) == ["two.example"])


async def test_a_plugin_that_has_crashed_starts_under_the_new_policy(host, make, file, events, monkeypatch):
    """A change applies even while the plugin doesn't run, and a restart uses the new policy."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    plugin = await host.load(make("p", CODE), policy=file, watch=True)
    await plugin.call("crash")
    await until(lambda: plugin.state is State.FAILED)
    file.write_text(TWO)
    await comes(lambda: policies(events))
    await plugin.reload()
    assert granted(plugin) == ["two.example"]


async def test_a_policy_that_is_put_in_force_by_hand_stays(host, plugin, file, tmp_path):
    """A policy passed as a value isn't undone by the file. A policy passed as another file is watched."""
    await plugin.update_policy(SandboxPolicy.locked_down())
    file.write_text(TWO)
    other = tmp_path / "other.toml"
    other.write_text(ONE)
    await plugin.update_policy(other)
    await comes(lambda: _watched(host) == {str(tmp_path)})
    other.write_text('[allow]\nconnect = ["three.example"]\n')
    await comes(lambda: granted(plugin) == ["three.example"])


def _watched(host) -> set[str]:
    return {path for path, _, _ in host._watcher._folders}


async def test_a_failed_update_by_hand_is_recorded(plugin, file, events):
    """The caller gets the error, the audit what was wrong; the old policy stays."""
    file.with_name("wrong.toml").write_text("[allow]\nconnect = [3]\n")
    with pytest.raises(PolicyError):
        await plugin.update_policy(file.with_name("wrong.toml"))
    with pytest.raises(FileNotFoundError):
        await plugin.update_policy(file.with_name("none.toml"))
    assert [allowed for allowed, _ in policies(events)] == [False, False]
    assert "wrong.toml:2" in policies(events)[0][1]
    assert "No such file" in policies(events)[1][1]
    assert granted(plugin) == ["one.example"]


@pytest.mark.parametrize("way", ["unload", "close"])
async def test_neither_thread_nor_task_is_left(host, make, file, way):
    """The watch ends with the last plugin that it is for, or with the host."""
    before = asyncio.all_tasks()
    for name in ("p", "q"):
        await host.load(make(name, CODE), policy=file, watch=True)
    await comes(lambda: _threads() == 1)
    if way == "unload":
        await host.unload("p")
        assert _threads() == 1
        await host.unload("q")
    else:
        await host._close()
    assert _threads() == 0
    assert asyncio.all_tasks() == before


def _threads() -> int:
    return sum(thread.name == "nyx-watch" for thread in threading.enumerate())


async def test_a_system_without_watches_is_polled(host, make, file, monkeypatch, caplog):
    """Without notifications the file is checked periodically, and the log says so."""
    import watchfiles

    def no_watches(*_, **__):
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", no_watches)
    monkeypatch.setattr("nyx_stream.host.operations.watch_policy._QUIET_STEPS", 1)
    plugin = await host.load(make("p", CODE), policy=file, watch=True)
    file.write_text(TWO)
    await comes(lambda: granted(plugin) == ["two.example"])
    await comes(lambda: "checked every 0.1 s: OS file watch limit reached" in caplog.text)


async def test_a_host_file_says_which_policies_are_followed(make, file, tmp_path):
    """`watch = true` needs a policy file."""
    make("p", CODE)
    host_file = tmp_path / "nyx.toml"
    text = '[[plugins]]\nfrom = "plugins/p"\nwatch = true\n'
    host_file.write_text(f'data_dir = "data"\n{text}policy = "policies/policy.toml"\n')
    async with PluginHost.from_toml(host_file) as host:
        file.write_text(TWO)
        await comes(lambda: granted(host["p"]) == ["two.example"])
    host_file.write_text(text)
    with pytest.raises(PolicyError, match=r"nyx\.toml:3: needs a policy file to watch"):
        PluginHost.from_toml(host_file)


async def test_what_is_needed_is_said(host, make, file, tmp_path, monkeypatch):
    """Without the extra, or without a file, nothing is started."""
    folder = make("p", CODE)
    with pytest.raises(ValueError, match="pass its path as the policy"):
        await host.load(folder, policy=SandboxPolicy.locked_down(), watch=True)
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "watchfiles":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WatchUnavailable, match=r"pip install 'nyx-sandbox\[watch\]'"):
        await host.load(folder, policy=file, watch=True)
    assert not host.plugins
    (tmp_path / "nyx.toml").write_text(f'[[plugins]]\nfrom = "plugins/p"\npolicy = "{file}"\nwatch = true\n')
    with pytest.raises(PolicyError, match=r"nyx\.toml:4: .*pip install"):
        PluginHost.from_toml(tmp_path / "nyx.toml")
