"""The lock file: what it records, which versions it refuses, and which approvals outlive the host."""

import asyncio
import errno
import json
import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import (
    ContentChanged,
    FilesystemDenied,
    LockError,
    NetworkDenied,
    PluginCrashed,
    PluginLoadError,
    PluginSetupError,
    PluginStateError,
    UpdateWaiting,
)
from nyx_stream.host import Answer, State, find
from nyx_stream.host.lockfile import verification
from nyx_stream.host.lockfile.content_hash import read_content
from nyx_stream.host.lockfile.file import LockedPlugin, LockFile
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import record_of, until
from tests.policy.special import SPECIAL

CODE = """
    VERSION = 1
    class Main(Plugin):
        @export
        async def which(self) -> int: return VERSION
        @export
        async def ask(self, target: str) -> bool: return bool(await self.request("request", target))
        @export
        async def fetch(self, url: str) -> str: return (await self.http.get(url, timeout=None)).text
    """


class Approver:
    def __init__(self):
        self.answer = Answer.always()
        self.asked = 0

    async def __call__(self, question):
        self.asked += 1
        return self.answer


@pytest.fixture
def approver():
    return Approver()


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "nyx.lock"


@pytest.fixture
def rule(server):
    return f"GET {server.url}/**"


@pytest.fixture
def write(make, rule):
    """Writes a version of the plugin: `write(version="1.1", code=…, more=…)`."""

    def write(version="1.0", code=CODE, more=""):
        folder = make("p", code, permissions=f'request = [{{rule = "{rule}", optional = true}}]\n{more}')
        manifest = folder / "plugin.toml"
        manifest.write_text(manifest.read_text().replace('version = "1.0"', f'version = "{version}"'))
        return folder

    return write


@pytest.fixture
def begin(tmp_path, events, approver, lock):
    """A host with the lock file: `async with begin() as host`."""

    def begin():
        return PluginHost(audit=events.append, data_dir=tmp_path / "data", approver=approver, lock=lock)

    return begin


def newer(code=CODE):
    return code.replace("VERSION = 1", "VERSION = 2")


def told(events, action):
    return [(e.allowed, e.reason) for e in events if e.kind == "approval" and e.action == action]


async def test_the_first_version_is_recorded(begin, write, lock, rule):
    """Version, content and permissions, readable by the owner only. Beside it is only the file that writers lock."""
    async with begin() as host:
        await host.load(write(more='env = ["TZ"]'))
    recorded = json.loads(lock.read_text())
    assert recorded["nyx_lock"] == 1
    plugin = recorded["plugins"]["p"]
    assert plugin["version"] == "1.0"
    assert re.fullmatch("blake2b:[0-9a-f]{64}", plugin["content"])
    assert plugin["permissions"] == [{"kind": "request", "rule": rule}, {"kind": "env", "rule": "TZ"}]
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert sorted(name for name in os.listdir(lock.parent) if "lock" in name) == ["nyx.lock", "nyx.lock.guard"]


async def test_approvals_outlive_the_host(begin, write, approver, server, rule):
    """A permanent approval is in force when the next host starts, without another question."""
    async with begin() as host:
        plugin = await host.load(write())
        assert await plugin.call("ask", target=rule)
    async with begin() as host:
        plugin = await host.load(write())
        assert await plugin.call("fetch", url=server.url) == "page"
        assert [(item.verdict, item.rule) for item in plugin.approvals] == [("always", rule)]
        assert await plugin.forget() == 1
    async with begin() as host:
        plugin = await host.load(write())
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url=server.url)
    assert approver.asked == 1


async def test_a_time_goes_on_running_and_once_does_not_outlive(begin, write, approver, rule, events):
    """The end is recorded, not the duration."""
    approver.answer = Answer.until("300ms")
    async with begin() as host:
        assert await (await host.load(write())).call("ask", target=rule)
    async with begin() as host:
        plugin = await host.load(write())
        await until(lambda: told(events, "expire"))
        assert plugin.approvals == ()
        approver.answer = Answer.once()
        assert await plugin.call("ask", target=rule)
    async with begin() as host:
        assert (await host.load(write())).approvals == ()


async def test_what_is_taken_back_is_gone_from_the_file(begin, write, lock, rule, tmp_path, events):
    """This includes approvals that only another host recorded."""
    async with PluginHost(audit=events.append, data_dir=tmp_path / "other", lock=lock) as other:
        unaware = await other.load(write())
        async with begin() as host:
            assert await (await host.load(write())).call("ask", target=rule)
        assert unaware.approvals == ()
        assert await unaware.forget("request", "GET https://other.example/**") == 0
        assert LockFile(lock).read()["p"].approvals
        assert await unaware.forget("request", rule) == 1
    assert told(events, "forget") == [(True, "withdrawn")]
    assert LockFile(lock).read()["p"].approvals == []
    async with begin() as host:
        assert (await host.load(write())).approvals == ()


async def test_what_is_taken_back_while_it_is_written_stays_gone(begin, write, lock, rule, monkeypatch):
    """An approval that is withdrawn while it is being written is removed afterwards."""
    slow, free, really = threading.Event(), threading.Event(), LockFile.add_approvals

    def keep(*arguments):
        slow.set()
        free.wait()
        really(*arguments)

    monkeypatch.setattr(LockFile, "add_approvals", keep)
    async with begin() as host:
        plugin = await host.load(write())
        asking = asyncio.create_task(plugin.call("ask", target=rule))
        await asyncio.to_thread(slow.wait)
        forgetting = asyncio.create_task(plugin.forget())
        await until(lambda: not plugin.approvals)
        free.set()
        assert await forgetting == 1
        await asking
    assert LockFile(lock).read()["p"].approvals == []


async def test_what_is_taken_back_during_a_reload_does_not_come_again(begin, write, lock, rule, monkeypatch):
    """The reload read the approval before it was withdrawn."""
    read, free, really = threading.Event(), threading.Event(), verification.verify
    async with begin() as host:
        plugin = await host.load(write())
        assert await plugin.call("ask", target=rule)

        def admit(*arguments):
            verdict = really(*arguments)
            read.set()
            free.wait()
            return verdict

        monkeypatch.setattr(verification, "verify", admit)
        reload = asyncio.create_task(plugin.reload())
        await asyncio.to_thread(read.wait)
        assert await plugin.forget() == 1
        free.set()
        await reload
        assert plugin.approvals == ()


async def test_changed_content_under_the_same_version_is_refused(begin, write, events):
    """It doesn't run. The status has the pending update, which runs once it is accepted."""
    async with begin() as host:
        await host.load(write())
    async with begin() as host:
        with pytest.raises(ContentChanged, match=r"its content differs from what was accepted as version 1\.0"):
            await host.load(write(code=newer()))
        status = host.plugins["p"]
        assert status.state is State.DISCOVERED
        assert status.waiting.version == "1.0"
        assert told(events, "update")[0][0] is False
        await host.approve("p")
        assert await (await host.load(write(code=newer()))).call("which") == 2
        assert host.plugins["p"].waiting is None


async def test_a_reload_of_changed_content_keeps_the_plugin(begin, write, server, rule):
    """The running version continues, with its approvals."""
    async with begin() as host:
        plugin = await host.load(write())
        assert await plugin.call("ask", target=rule)
        write(code=newer())
        with pytest.raises(ContentChanged):
            await plugin.reload()
        assert await plugin.call("which") == 1
        assert await plugin.call("fetch", url=server.url) == "page"


async def test_a_version_that_wants_no_more_is_taken(begin, write, rule, approver, server, lock):
    """It is recorded. Approvals were for other code, so the plugin must request again."""
    async with begin() as host:
        plugin = await host.load(write(more='read = ["/usr"]'))
        assert await plugin.call("ask", target=rule)
        write("1.1", newer(), more='read = ["/usr/share"]')
        await plugin.reload()
        assert await plugin.call("which") == 2
        assert plugin.approvals == ()
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url=server.url)
        assert json.loads(lock.read_text())["plugins"]["p"]["version"] == "1.1"
        assert await plugin.call("ask", target=rule)
    assert approver.asked == 2


async def test_a_version_that_does_not_start_is_not_recorded(begin, write, lock, rule, server):
    """The lock file keeps the running version and its approvals for the next host."""
    bad = (
        newer()
        + """
        async def setup(self): raise ValueError("on purpose")
    """
    )
    async with begin() as host:
        with pytest.raises(PluginSetupError):
            await host.load(write(code=bad))
        assert not lock.exists()
        plugin = await host.load(write())
        assert await plugin.call("ask", target=rule)
        before = lock.read_bytes()
        write("1.1", bad)
        with pytest.raises(PluginSetupError):
            await plugin.reload()
        assert lock.read_bytes() == before
        assert await plugin.call("fetch", url=server.url) == "page"
    async with begin() as host:
        with pytest.raises(PluginSetupError):
            await host.load(write("1.1", bad))
        assert lock.read_bytes() == before


async def test_what_is_approved_during_setup_is_recorded(begin, write, lock, rule):
    """The request comes before the version is recorded."""
    code = (
        CODE
        + f"""
        async def setup(self): assert await self.request("request", "{rule}")
    """
    )
    async with begin() as host:
        plugin = await host.load(write(code=code))
        assert [item.rule for item in LockFile(lock).read()["p"].approvals] == [rule]
        write("1.1", newer(code))
        await plugin.reload()
        recorded = LockFile(lock).read()["p"]
        assert (recorded.version, [item.rule for item in recorded.approvals]) == ("1.1", [rule])


@pytest.mark.parametrize("loaded", [False, True])
async def test_what_cannot_be_recorded_does_not_run(begin, write, monkeypatch, loaded, lock):
    """The new version is stopped before its first call; a running version continues."""
    async with begin() as host:
        if loaded:
            plugin = await host.load(write())
            before = lock.read_bytes()
        folder = write("1.1", newer())

        def fail(*_):
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(PluginLoadError, match=r"can't be recorded in the lock file: .*no space"):
                await (plugin.reload() if loaded else host.load(folder))
        if loaded:
            assert await plugin.call("which") == 1
            assert lock.read_bytes() == before
        else:
            assert host["p"].state is State.FAILED
            assert "no space" in host["p"].status.error
        await (plugin.reload() if loaded else host.load(folder))
        assert await host["p"].call("which") == 2


async def test_another_host_that_was_faster_decides(begin, write, lock, monkeypatch):
    """Two hosts start two contents under one version at once: that of the second to run waits."""
    really = verification.record

    def record(file, name, found, *more):
        with file.changing() as plugins:
            plugins[name] = found.model_copy(update={"content": "blake2b:" + "0" * 64})
        return really(file, name, found, *more)

    monkeypatch.setattr(verification, "record", record)
    async with begin() as host:
        with pytest.raises(ContentChanged):
            await host.load(write())
        assert host["p"].state is State.FAILED
        assert host["p"].status.waiting is not None


async def test_one_that_fails_while_it_is_recorded_is_not(begin, write, lock, monkeypatch):
    """It crashed after its setup and before it was recorded."""
    really, loop = verification.record, asyncio.get_running_loop()
    async with begin() as host:
        plugin = await host.load(write())
        before = lock.read_bytes()
        write("1.1", newer())

        def record(file, name, found, approvals, runs):
            assert runs()
            loop.call_soon_threadsafe(record_of(plugin).next_run.crash, RuntimeError("on purpose"))
            while runs():
                pass
            return really(file, name, found, approvals, runs)

        monkeypatch.setattr(verification, "record", record)
        with pytest.raises(PluginCrashed):
            await plugin.reload()
        assert lock.read_bytes() == before
        assert await plugin.call("which") == 1


@pytest.mark.parametrize(
    "more", ['read = ["/usr"]', 'env = ["TZ"]', 'connect = [{rule = "a.example", optional = true}]']
)
async def test_a_version_that_wants_more_waits(begin, write, events, more, lock):
    """The accepted version continues and the status has the update, which runs once it is accepted."""
    async with begin() as host:
        plugin = await host.load(write())
        write("1.1", newer(), more)
        before = lock.read_bytes()
        with pytest.raises(UpdateWaiting, match=r"update waiting: version 1\.1 requests more than 1\.0: "):
            await plugin.reload()
        assert lock.read_bytes() == before
        assert await plugin.call("which") == 1
        waiting = plugin.status.waiting
        assert (plugin.status.version, waiting.version) == ("1.0", "1.1")
        assert told(events, "update") == [
            (False, f"{waiting.reason}; review it, then accept it with host.approve() or `nyx approve`")
        ]
        await host.approve("p")
        assert told(events, "accept") == [(True, "version 1.1 is accepted")]
        await plugin.reload()
        assert await plugin.call("which") == 2
        assert plugin.status.waiting is None


async def test_only_what_was_refused_can_be_accepted(begin, write):
    """Files that change between the review and the acceptance aren't accepted."""
    async with begin() as host:
        plugin = await host.load(write())
        with pytest.raises(PluginStateError, match="no update of it is waiting"):
            await host.approve("p")
        write("1.1", newer(), 'env = ["TZ"]')
        with pytest.raises(UpdateWaiting):
            await plugin.reload()
        write("1.1", newer(newer()) + "# another\n", 'env = ["TZ"]')
        with pytest.raises(ContentChanged, match="since it was refused"):
            await host.approve("p")
        assert await plugin.call("which") == 1


async def test_a_restart_after_a_crash_looks_again(begin, write, make, rule, events):
    """Files that changed while the plugin ran aren't loaded after a crash."""
    crash = (
        CODE
        + """
        @export
        async def crash(self) -> None: self.spawn(self.fail())
        async def fail(self) -> None: raise RuntimeError("on purpose")
    """
    )
    async with begin() as host:
        plugin = await host.load(write(code=crash), on_fail="restart")
        write(code=newer(crash))
        await plugin.call("crash")
        await until(lambda: told(events, "update"))
        assert plugin.status.waiting is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"plugins": {}}', '{"nyx_lock": 2, "plugins": {}}', '{"nyx_lock": 1, "plugins": {}, "more": 1}',
        '{"nyx_lock": 1, "plugins": {"p": {"version": "1.0", "content": "md5:0", "permissions": []}}}',
        '{"nyx_lock": 1, "plugins": {"../p": {}}}', "\udcff",
        *(
            '{"nyx_lock": 1, "plugins": {"p": {"version": "1.0", "permissions": [], '
            f'"content": "blake2b:{"0" * 64}", '
            f'"approvals": [{{"kind": "read", "rule": "/usr", "verdict": "{verdict}", "until": {until}}}]}}}}}}'
            for verdict, until in
            (("until", "NaN"), ("until", "Infinity"), ("until", "1e300"), ("until", "null"), ("always", "1.0"))
        ),
    ],
)  # fmt: skip
async def test_a_broken_lock_file_stops_the_load(begin, write, lock, text):
    """It isn't treated as empty: the plugin doesn't run, and the file stays as it is."""
    lock.write_bytes(text.encode("utf-8", "surrogateescape"))
    lock.chmod(0o600)
    async with begin() as host:
        with pytest.raises(LockError, match=r"nyx\.lock: broken"):
            await host.load(write())
    assert lock.read_bytes() == text.encode("utf-8", "surrogateescape")


async def test_a_lock_file_that_others_may_write_is_not_trusted(begin, write, lock):
    """A symbolic link in its place isn't trusted either."""
    async with begin() as host:
        await host.load(write())
    lock.chmod(0o620)
    async with begin() as host:
        with pytest.raises(LockError, match="other users may write it"):
            await host.load(write())
    lock.rename(f"{lock}.real")
    for target in (f"{lock}.real", "nowhere"):
        lock.unlink(missing_ok=True)
        lock.symlink_to(target)
        async with begin() as host:
            with pytest.raises(LockError, match=r"nyx\.lock: not a regular file"):
                await host.load(write())


@pytest.mark.parametrize("kind", SPECIAL)
async def test_a_lock_file_that_is_no_file_is_an_error_at_once(begin, write, lock, kind):
    """The error leaves no descriptor open."""
    SPECIAL[kind](lock)
    async with begin() as host:
        before = len(os.listdir("/dev/fd"))
        with pytest.raises(LockError, match=r"nyx\.lock: not a regular file"):
            await host.load(write())
        assert len(os.listdir("/dev/fd")) == before


async def test_without_a_lock_file_code_can_change_at_will(tmp_path, write):
    """Without a lock file, a reload runs the changed code."""
    async with PluginHost(data_dir=tmp_path / "data") as host:
        plugin = await host.load(write())
        write(code=newer())
        await plugin.reload()
        assert await plugin.call("which") == 2
        with pytest.raises(PluginStateError, match="no lock file"):
            await host.approve("p")


async def test_a_host_file_names_its_lock(tmp_path, write):
    """The path is relative to the host file's folder."""
    write()
    (tmp_path / "nyx.toml").write_text('lock = "state.lock"\ndata_dir = "data"\n[[plugins]]\nfrom = "plugins/p"\n')
    async with PluginHost.from_toml(tmp_path / "nyx.toml"):
        pass
    assert "p" in json.loads((tmp_path / "state.lock").read_text())["plugins"]


async def test_a_plugin_cannot_approve_of_itself(begin, make, lock, tmp_path):
    """The lock file is denied under every name of its folder, even if that is granted. Other files there are not."""
    code = """
        class Main(Plugin):
            @export
            async def write(self, name: str) -> None: await self.files.write_text(name, "forged")
            @export
            async def move(self, old: str, new: str) -> None: await self.files.rename(old, new)
        """
    inner = tmp_path / "state"
    inner.mkdir()
    (tmp_path / "alias").symlink_to(inner)
    folder = make("p", code, permissions=f'write = ["{tmp_path}"]')
    policy = SandboxPolicy.locked_down().allow_path_prefix(tmp_path)
    async with PluginHost(data_dir=tmp_path / "data", lock=inner / "nyx.lock") as host:
        plugin = await host.load(folder, policy=policy)
        recorded = (inner / "nyx.lock").read_bytes()
        await plugin.call("write", name=f"{inner}/beside")
        names = [os.path.basename(path) for path in LockFile(inner / "nyx.lock").paths]
        assert names == ["nyx.lock", "nyx.lock.new", "nyx.lock.guard"]
        for name in (folder / name for folder in (inner, tmp_path / "alias") for name in names):
            with pytest.raises(FilesystemDenied):
                await plugin.call("write", name=str(name))
            with pytest.raises(FilesystemDenied):
                await plugin.call("move", old=f"{inner}/beside", new=str(name))
        with pytest.raises(FilesystemDenied):
            await plugin.call("move", old=str(inner), new=str(tmp_path / "elsewhere"))
        assert (inner / "nyx.lock").read_bytes() == recorded


def test_nobody_loses_what_another_wrote(lock):
    """Concurrent writers take turns, and every change is kept."""
    plugin = LockedPlugin(version="1", content="blake2b:" + "0" * 64, permissions=[])

    def add(number):
        with LockFile(lock).changing() as plugins:
            plugins[f"p{number}"] = plugin

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(LockFile(lock).read()) == sorted(f"p{number}" for number in range(40))


def test_a_write_that_fails_changes_nothing(lock, monkeypatch):
    """The file is as before, and no half-written file is left."""
    plugin = LockedPlugin(version="1", content="blake2b:" + "0" * 64, permissions=[])
    with LockFile(lock).changing() as plugins:
        plugins["p"] = plugin
    before = lock.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"), LockFile(lock).changing() as plugins:
        plugins["q"] = plugin
    assert lock.read_bytes() == before
    assert sorted(path.name for path in lock.parent.iterdir() if "lock" in path.name) == ["nyx.lock", "nyx.lock.guard"]


def test_the_hash_is_of_names_and_bytes(make, tmp_path):
    """Every change of a file changes the hash; bytecode, which is never imported, doesn't."""
    folder = make("p", CODE, other="x = 1")
    seen = [read_content(find(folder)).hash]

    def shows(change):
        change()
        seen.append(read_content(find(folder)).hash)
        return seen[-1] != seen[-2]

    assert shows(lambda: (folder / "other.py").write_text("x = 2"))
    assert shows(lambda: (folder / "other.py").rename(folder / "others.py"))
    assert shows(lambda: (folder / "data").mkdir() or (folder / "data" / "a").write_text(""))
    assert shows(lambda: (folder / "data").rename(folder / "date"))
    assert shows(lambda: (folder / "link").symlink_to("main.py"))
    assert shows(lambda: (folder / "link").unlink() or (folder / "link").symlink_to("others.py"))
    (folder / "__pycache__").mkdir()
    assert not shows(lambda: (folder / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x"))
    assert shows(lambda: (folder / "__pycache__" / "evil.py").write_text("x = 1"))
    assert shows(lambda: (folder / "evil.pyc").write_text("x = 1"))
    assert len(set(seen)) == len(seen) - 1


def test_what_cannot_be_hashed_is_refused(make, tmp_path):
    """Links that lead out of the plugin or to bytecode, and pipes, are refused."""
    folder = make("p", CODE)
    (tmp_path / "outside.py").write_text("x = 1")
    (folder / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(PluginLoadError, match="leads out of the plugin"):
        read_content(find(folder))
    (folder / "link.py").unlink()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_text("x = 1")  # left out, and read as source under the other name
    (folder / "link.py").symlink_to("__pycache__/code.pyc")
    with pytest.raises(PluginLoadError, match="leads to bytecode"):
        read_content(find(folder))
    (folder / "link.py").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(PluginLoadError, match="not a regular file"):
        read_content(find(folder))
