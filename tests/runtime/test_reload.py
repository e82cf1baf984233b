"""A reload starts the new version, moves the calls over, then stops the old one. No call is lost at any level."""

import asyncio
import sys

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import (
    FilesystemDenied,
    ManifestError,
    PluginCrashed,
    PluginLoadError,
    PluginSetupError,
    PluginStateError,
    PluginTimeout,
    PolicyError,
    Revoked,
)
from nyx_stream.host import Answer, State
from nyx_stream.isolation.remote.host.handshake import SealRefused
from nyx_stream.policy import SandboxPolicy
from tests.conformance.machine import missing
from tests.plugin_fixtures import record_of, turn, until
from tests.runtime.versions import PERMISSIONS, POLICY, code

SLOW = 'await self.until("start")'


def recorded(events, action):
    return [(event.allowed, event.reason) for event in events if event.action == action]


def tasks():
    """The tasks on the loop, without the one that makes the next worker ahead of time."""
    return {task for task in asyncio.all_tasks() if task.get_name() != "nyx:reserve"}


async def test_a_constant_load_through_many_reloads_loses_no_call(first, release, level):
    """Callers and readers of streams that never pause get a result from every call, of a version that was there."""
    plugin = await first()
    rounds = 25 if level == "inline" else 8
    present, over = 1, False
    answers = 0

    async def caller():
        nonlocal answers
        while not over:
            oldest = present
            answer = await plugin.call("version")
            assert oldest <= answer <= present + 1
            answers += 1
            await asyncio.sleep(0)

    async def reader():
        nonlocal answers
        while not over:
            items = [item async for item in plugin.stream("count", to=3)]
            assert len(items) == 3
            assert len(set(items)) == 1
            answers += 1

    async def share():  # or threads, which read what is reloaded, could wait long for a loop that is never idle
        while not over:
            await turn()

    async with asyncio.TaskGroup() as group:
        group.create_task(share())
        for _ in range(4):
            group.create_task(caller())
            group.create_task(reader())
        for number in range(2, rounds + 2):
            release(number)
            before = answers
            await plugin.reload()
            present = number
            await until(lambda before=before: answers > before + 8)
        over = True
    assert await plugin.call("version") == rounds + 1
    stats = plugin.stats()
    assert (stats.failed, stats.refused, stats.active) == (0, 0, 0)
    assert stats.calls == answers + 1


async def test_calls_under_way_finish_on_the_old_version(first, release, allow):
    """They continue, as does an open stream, while the new version takes new calls."""
    plugin = await first()
    call = asyncio.create_task(plugin.call("wait", name="go"))
    items = plugin.stream("count", to=3)
    assert await anext(items) == 1
    await until(lambda: plugin.stats().active == 2)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    assert await plugin.call("version") == 2
    assert [item async for item in items] == [1, 1]
    assert not reload.done()
    assert plugin.stats().active == 1
    allow("go")
    assert await call == 1
    await reload
    assert not record_of(plugin).draining
    assert plugin.stats().failed == 0


async def test_a_call_that_was_made_but_not_begun_is_the_new_versions(first, release):
    """A call or stream goes to the version that runs when it is first awaited."""
    plugin = await first()
    call, items = plugin.call("version"), plugin.stream("count", to=2)
    for number in (2, 3):
        release(number)
        await plugin.reload()
    assert await call == 3
    assert [item async for item in items] == [3, 3]


async def test_what_outlives_its_timeout_does_not_keep_the_old_version(first, release):
    """A call ends by its timeout; an abandoned stream is closed, and its next step says why."""
    plugin = await first(limits='call_timeout = "500ms"')
    call = asyncio.create_task(plugin.call("hang"))
    items = plugin.stream("count", to=3)
    await anext(items)
    release(2)
    await plugin.reload()
    with pytest.raises(PluginTimeout):
        await call
    with pytest.raises(PluginStateError, match="a reload replaced it during the call"):
        await anext(items)
    assert await plugin.call("version") == 2


BROKEN = {
    "manifest": (ManifestError, "plugin.toml"),
    "id": (PluginLoadError, "its manifest now has the id 'q'"),
    "import": (PluginLoadError, "does not import"),
    "setup": (PluginSetupError, "setup raised"),
    "slow": (PluginSetupError, "setup took longer"),
    "crash": (PluginSetupError, "a background task failed during setup"),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_broken_version_leaves_the_old_one_serving(first, release, make, allow, events, fault):
    """The error is raised and audited, and running calls continue."""
    kind, text = BROKEN[fault]
    plugin = await first()
    leases = plugin.leases
    call = asyncio.create_task(plugin.call("wait", name="go"))
    await until(lambda: plugin.stats().active)
    before = tasks()
    if fault == "manifest":
        (release(2) / "plugin.toml").write_text("id = 3")
    elif fault == "id":
        release(2, plugin_id="q")
    elif fault == "import":
        make("p", "raise ValueError")
    elif fault == "setup":
        release(2, setup="raise ValueError")
    elif fault == "slow":
        release(2, setup=SLOW, limits='setup_timeout = "300ms"')
    else:
        allow("bomb")
        release(2, setup='self.spawn(self.explode()); await self.until("never")')
    with pytest.raises(kind, match=text):
        await plugin.reload()
    assert recorded(events, "reload")[0][0] is False
    assert text in recorded(events, "reload")[0][1]
    assert plugin.state is State.RUNNING
    assert plugin.leases == leases
    assert await plugin.call("version") == 1
    allow("go")
    assert await call == 1
    assert tasks() <= before
    release(3)
    await plugin.reload()
    assert await plugin.call("version") == 3
    assert recorded(events, "reload")[1:] == [(True, "1.0 was replaced by 1.0")]


@pytest.mark.skipif(bool(missing()), reason=f"this machine cannot seal a process: {missing()}")
async def test_a_version_that_cannot_be_sealed_leaves_the_old_one_serving(host, make, monkeypatch):
    """The new worker is refused; the old one stays sealed as it is."""
    plugin = await host.load(make("p", code(1), permissions=PERMISSIONS), policy=POLICY, isolation="process")

    def refuse(*_):
        raise SealRefused("not today")

    make("p", code(2), permissions=PERMISSIONS)
    with monkeypatch.context() as patch:
        patch.setattr("nyx_stream.isolation.remote.host.handshake.judge", refuse)
        with pytest.raises(PluginLoadError, match="not sealed: not today"):
            await plugin.reload()
    assert await plugin.call("version") == 1


async def test_a_wrong_policy_file_leaves_the_old_version_serving(host, release, level, tmp_path, events):
    """The file is read again by a reload; if it is wrong, nothing is replaced."""
    file = tmp_path / "policy.toml"
    file.write_text('[allow]\nwrite = ["$DATA"]\n')
    plugin = await host.load(release(1), policy=file, isolation=level)
    file.write_text("[allow]\nwrite = [3]\n")
    release(2)
    with pytest.raises(PolicyError):
        await plugin.reload()
    assert await plugin.call("version") == 1
    assert "policy.toml:2" in recorded(events, "reload")[0][1]
    file.write_text("[allow]\n")
    await plugin.reload()
    assert await plugin.call("version") == 2
    assert plugin.grant.policy.paths == ()


async def test_the_new_version_has_leases_of_its_own(host, release, level, allow):
    """The old version's leases last until it has ended. Budgets aren't shared."""
    plugin = await host.load(release(1), policy=POLICY.with_lease("files", ttl="1h"), isolation=level)
    old = record_of(plugin).leases
    call = asyncio.create_task(plugin.call("hold", name="go"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    assert record_of(plugin).leases is not old
    assert old.status()["files"].reason is None
    allow("go")
    assert await call == "kept"
    await reload
    assert old.status()["files"].reason == "revoked: the plugin was unloaded"
    assert plugin.leases["files"].reason is None


async def test_what_is_revoked_during_a_reload_is_gone_from_every_version(first, release, allow, events):
    """The revocation applies to the current, the next and the draining version."""
    plugin = await first()
    release(2, setup=SLOW)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).next_run)
    next_run = record_of(plugin).next_run
    await plugin.revoke("http", reason="incident 42")
    allow("start")
    await reload
    assert record_of(plugin).run is next_run
    assert plugin.leases["http"].reason == "revoked: incident 42"
    assert plugin.leases["files"].reason is None
    call = asyncio.create_task(plugin.call("wait", name="go"))
    await until(lambda: plugin.stats().active)
    release(3)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    await plugin.revoke("files", reason="incident 43")
    with pytest.raises(Revoked, match="incident 43"):
        await call
    await reload
    with pytest.raises(Revoked, match="incident 43"):
        await plugin.call("wait", name="go")
    assert [event.target for event in events if event.action == "revoke"] == ["http", "files"]


async def test_a_hard_revocation_ends_the_old_version_at_once(first, release):
    """The draining version is stopped too."""
    plugin = await first()
    call = asyncio.create_task(plugin.call("hang"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    await plugin.revoke("files", reason="incident 42", hard=True)
    assert not record_of(plugin).draining
    with pytest.raises(PluginStateError):
        await call
    await reload
    assert await plugin.call("version") == 2
    with pytest.raises(Revoked):
        await plugin.call("wait", name="go")


async def test_a_new_policy_is_the_old_versions_too(first, release):
    """A policy update applies to the draining version too."""
    plugin = await first()
    call = asyncio.create_task(plugin.call("wait", name="go"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    await plugin.update_policy(SandboxPolicy.locked_down())
    with pytest.raises(PermissionError, match="no rule"):
        await call
    await reload


async def test_a_crash_of_the_old_version_while_the_new_one_starts_is_over_with_it(first, release, allow, monkeypatch):
    """The new version takes the calls; a restart of the old one is not needed any more."""
    monkeypatch.setattr("nyx_stream.host.operations.restart.DELAYS", (0.0,) * 5)
    plugin = await first(on_fail="restart")
    await plugin.call("arm")
    release(2, setup=SLOW)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).next_run)
    allow("bomb")
    await until(lambda: plugin.state is State.FAILED)
    with pytest.raises(PluginCrashed):
        await plugin.call("version")
    allow("start")
    await reload
    await until(lambda: not [task for task in tasks() if task.get_name() == "nyx:restart:p"])
    assert await plugin.call("version") == 2
    assert plugin.stats().restarts == 0


async def test_a_crash_of_the_version_that_ends_is_not_the_plugins(first, release, allow, events):
    """Its calls get PluginCrashed, it is recorded, and the new version goes on."""
    plugin = await first()
    await plugin.call("arm")
    call = asyncio.create_task(plugin.call("hang"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    allow("bomb")
    with pytest.raises(PluginCrashed):
        await call
    await reload
    assert len(recorded(events, "run")) == 1
    assert plugin.state is State.RUNNING
    assert await plugin.call("version") == 2


@pytest.mark.parametrize("way", ["unload", "close"])
async def test_unloading_or_closing_gives_up_a_reload(first, release, host, way):
    """Neither waits for the setup of the new version, and both versions are cleaned up."""
    before = tasks()
    plugin = await first()
    release(2, setup=SLOW)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).next_run and record_of(plugin).next_run.state is State.STARTING)
    await (host.unload("p") if way == "unload" else host._close())
    with pytest.raises(PluginStateError, match="it was stopped while it started"):
        await reload
    assert plugin.state is State.STOPPED
    with pytest.raises(PluginStateError):
        await plugin.reload()
    await host._close()
    assert tasks() <= before


@pytest.mark.parametrize("way", ["unload", "close"])
async def test_unloading_or_closing_ends_the_version_that_finishes_its_calls(first, release, host, way):
    """Its running calls are ended."""
    before = tasks()
    plugin = await first()
    call = asyncio.create_task(plugin.call("hang"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    await (host.unload("p") if way == "unload" else host._close())
    with pytest.raises(PluginStateError):
        await call
    await reload
    await host._close()
    assert tasks() <= before


async def test_a_reload_that_is_cancelled_changes_nothing_or_goes_on(first, release, allow):
    """While the new version starts, the old one stays; once it took over, the old one still finishes its calls."""
    plugin = await first()
    release(2, setup=SLOW)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).next_run)
    reload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reload
    assert await plugin.call("version") == 1
    call = asyncio.create_task(plugin.call("wait", name="go"))
    await until(lambda: plugin.stats().active)
    release(2)
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    reload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reload
    allow("go")
    assert await call == 1
    await until(lambda: not record_of(plugin).draining)
    assert await plugin.call("version") == 2


async def test_two_versions_at_level_inline_have_their_own_modules(host, make, events):
    """Each imports its own modules, even late, and the old version's modules are removed."""
    text = """
        import asyncio, side
        class Main(Plugin):
            @export
            async def late(self, name: str) -> int:
                while not await self.files.exists(name): await asyncio.sleep(0)
                import side
                try: open("/etc/hostname")
                except PermissionError: pass
                return side.NUMBER
        """
    folder = make("p", text, permissions=PERMISSIONS, side="NUMBER = 1")
    plugin = await host.load(folder, policy=POLICY)
    call = asyncio.create_task(plugin.call("late", name="go"))
    await until(lambda: plugin.stats().active)
    make("p", text, permissions=PERMISSIONS, side="NUMBER = 2")
    reload = asyncio.create_task(plugin.reload())
    await until(lambda: record_of(plugin).draining)
    (folder.parent.parent / "data" / "p" / "go").write_text("")
    assert await plugin.call("late", name="go") == 2
    assert await call == 1
    await reload
    tripped = [event.plugin for event in events if event.layer == "tripwire"]
    assert tripped == ["p", "p"]
    assert len([name for name in sys.modules if name.startswith("_nyx_p_") and name.endswith(".side")]) == 1


async def test_an_approval_during_a_reload_brings_no_old_policy_back(make, level, tmp_path):
    """An approval during the start is added to the policy of the starting version."""
    code = """
        class Main(Plugin):
            async def setup(self): await self.request("connect", "h.example")
            @export
            async def read(self, path: str) -> str: return await self.files.read_text(path)
        """
    folder = make("p", code, permissions=f'connect = [{{rule = "h.example", optional = true}}]\nread = ["{tmp_path}"]')
    (tmp_path / "secret").write_text("secret")
    file = tmp_path / "policy.toml"
    file.write_text(f'[allow]\nread = ["{tmp_path}"]\n')

    async def approver(question):
        return Answer.always()

    async with PluginHost(data_dir=tmp_path / "data", approver=approver) as host:
        plugin = await host.load(folder, policy=file, isolation=level)
        assert await plugin.call("read", path=str(tmp_path / "secret")) == "secret"
        assert await plugin.forget() == 1
        file.write_text("[allow]\n")
        await plugin.reload()
        assert plugin.approvals
        with pytest.raises(FilesystemDenied):
            await plugin.call("read", path=str(tmp_path / "secret"))


async def test_a_policy_file_that_a_reload_reads_is_the_old_versions_too(host, release, level, tmp_path):
    """As with `update_policy`: calls that go on under the old version go on under the new policy."""
    file = tmp_path / "policy.toml"
    file.write_text('[allow]\nwrite = ["$DATA"]\n')
    plugin = await host.load(release(1), policy=file, isolation=level)
    call = asyncio.create_task(plugin.call("wait", name="go"))
    await until(lambda: plugin.stats().active)
    file.write_text("[allow]\n")
    release(2)
    await plugin.reload()
    with pytest.raises(PermissionError, match="no rule"):
        await call
