"""A plugin under a policy that changes and is revoked while it runs, with real files and real HTTP."""

import asyncio
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nyx_stream.errors import FilesystemDenied, NetworkDenied, PluginLoadError, PluginStateError, PolicyError, Revoked
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import until

CODE = """
    import os

    class Main(Plugin):
        @export
        async def save(self, name: str, text: str) -> None: await self.files.write_text(name, text)
        @export
        async def read(self, name: str) -> str: return await self.files.read_text(name)
        @export
        async def fetch(self, url: str) -> str: return (await self.http.get(url)).text
        @export
        async def environment(self) -> dict[str, str]: return dict(self.env)
        @export
        async def hold(self, name: str) -> str:
            async with self.files.open(name) as file:
                import asyncio
                await asyncio.Event().wait()
    """
PERMISSIONS = """
    write = ["$DATA"]
    read = ["./shipped"]
    connect = ["127.0.0.1"]
    env = ["NYX_TEST_ONE", "NYX_TEST_TWO", "NYX_TEST_UNSET"]
    """


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """The address of a web server of the host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def policy() -> SandboxPolicy:
    return SandboxPolicy.locked_down().allow_path_prefix("$DATA").allow_connect_host("127.0.0.1")


async def test_capabilities_work_under_the_tripwire(host, make, tmp_path, server, events):
    """Granted files and requests are allowed, each is recorded once, and the tripwire doesn't fire."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("save", name="note.txt", text="kept")
    assert await plugin.call("read", name="note.txt") == "kept"
    assert (tmp_path / "data" / "p" / "note.txt").read_text() == "kept"
    assert await plugin.call("fetch", url=server) == "page"
    assert not [event for event in events if not event.allowed]
    done = [(event.capability, event.action) for event in events if event.layer != "host"]
    assert done.count(("http", "GET")) == 1
    assert [action for capability, action in done if capability == "files"] == ["write", "read"]


async def test_without_a_policy_nothing_is_granted(host, make, server, events):
    """A request in the manifest isn't a grant; every denial is recorded and counted."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS))
    with pytest.raises(FilesystemDenied, match=r"p: files .* denied"):
        await plugin.call("save", name="note.txt", text="kept")
    with pytest.raises(NetworkDenied, match=r"p: http GET .* denied"):
        await plugin.call("fetch", url=server)
    denied = [event for event in events if not event.allowed]
    assert [event.layer for event in denied] == ["guard", "guard"]
    assert plugin.stats().denied == 2
    assert [row.status for row in plugin.grant.rows()] == ["refused"] * 6


async def test_the_data_directory_is_private(host, make, tmp_path):
    """$DATA is made with mode 0700 for its plugin; one that others can enter is closed to them."""
    data = tmp_path / "data" / "p"
    data.mkdir(parents=True)
    data.chmod(0o777)
    await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    assert data.stat().st_mode & 0o777 == 0o700
    await host.load(make("q", CODE, permissions=PERMISSIONS), policy=policy())
    assert (tmp_path / "data" / "q").stat().st_mode & 0o777 == 0o700


async def test_a_plugin_that_asks_for_no_data_gets_no_directory(host, make, tmp_path):
    """A plugin that doesn't request $DATA gets no directory."""
    await host.load(make("p", CODE))
    assert not (tmp_path / "data" / "p").exists()


async def test_a_link_in_place_of_the_data_directory_is_refused(host, make, tmp_path):
    """A symbolic link in place of the data directory doesn't redirect the plugin's writes."""
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "p").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PluginLoadError, match=r"its data directory can't be made: .* is not a directory"):
        await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    assert host.plugins["p"].error


async def test_only_granted_variables_are_in_env(host, make, monkeypatch):
    """self.env has what was asked for, granted and set; it follows a change of policy."""
    for name in ("NYX_TEST_ONE", "NYX_TEST_TWO", "NYX_TEST_OTHER"):
        monkeypatch.setenv(name, name.lower())
    plugin = await host.load(
        make("p", CODE, permissions=PERMISSIONS),
        policy=policy().allow_env("NYX_TEST_ONE", "NYX_TEST_OTHER", "NYX_TEST_UNSET"),
    )
    assert await plugin.call("environment") == {"NYX_TEST_ONE": "nyx_test_one"}
    await plugin.update_policy(policy().allow_env("NYX_TEST_TWO"))
    assert await plugin.call("environment") == {"NYX_TEST_TWO": "nyx_test_two"}


async def test_a_new_policy_is_in_force_at_once(host, make, tmp_path, server):
    """update_policy narrows and widens while the plugin runs, from a value or a file; a wrong file changes nothing."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("fetch", url=server)
    await plugin.update_policy(SandboxPolicy.locked_down())
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch", url=server)
    (tmp_path / "policy.toml").write_text('[allow]\nconnect = ["127.0.0.1"]\n[limits]\nconcurrency = 1\nqueue = 1\n')
    await plugin.update_policy(tmp_path / "policy.toml")
    assert await plugin.call("fetch", url=server) == "page"
    (tmp_path / "policy.toml").write_text("[allow]\nconnect = [3]\n")
    with pytest.raises(PolicyError):
        await plugin.update_policy(tmp_path / "policy.toml")
    assert await plugin.call("fetch", url=server) == "page"
    with pytest.raises(PolicyError):
        await plugin.reload()


async def test_a_revoked_capability_is_gone_until_a_reload(host, make, server, events):
    """revoke ends one capability with its reason, leaves the others, and is recorded."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("save", name="a", text="a")
    await plugin.revoke("http", reason="incident 42")
    with pytest.raises(Revoked, match="revoked: incident 42"):
        await plugin.call("fetch", url=server)
    assert await plugin.call("read", name="a") == "a"
    assert [(event.target, event.reason) for event in events if event.action == "revoke"] == [("http", "incident 42")]
    with pytest.raises(LookupError, match="no capability 'everything'; there are http, files"):
        await plugin.revoke("everything", reason="")
    await plugin.reload()
    assert await plugin.call("fetch", url=server) == "page"
    await host.unload("p")
    with pytest.raises(PluginStateError):
        await plugin.revoke("http", reason="late")
    with pytest.raises(PluginStateError):
        await plugin.update_policy(policy())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are looked up in /proc")
async def test_unloading_closes_clients_and_files(host, make, server):
    """Unloading closes the plugin's pooled connections and open files."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("save", name="a", text="a")
    await plugin.call("fetch", url=server)
    holding = asyncio.create_task(plugin.call("hold", name="a"))
    await until(lambda: any(link.endswith("/data/p/a") for link in _links()))
    await host.unload("p")
    with pytest.raises(PluginStateError):
        await holding
    assert not any("/data/p" in link for link in _links())


def _links() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


async def test_a_plugin_does_not_write_where_a_plugin_is_imported_from(host, make, tmp_path):
    """A policy that grants a plugin's folder for writing doesn't let it write code there."""
    folder = make("p", CODE, permissions=f'write = ["{tmp_path}"]')
    plugin = await host.load(folder, policy=SandboxPolicy.locked_down().allow_path_prefix(str(tmp_path)))
    await plugin.call("save", name=str(tmp_path / "fine.txt"), text="x")
    with pytest.raises(FilesystemDenied, match="plugin code is imported from there"):
        await plugin.call("save", name=str(folder / "planted.py"), text="x")


async def test_everything_is_in_the_audit_log(make, tmp_path, server):
    """After a host has closed, its audit log has one JSON line per decision."""
    from nyx_stream import PluginHost

    path = tmp_path / "audit.jsonl"
    async with PluginHost(audit=path, data_dir=tmp_path / "data") as host:
        plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
        await plugin.call("fetch", url=server)
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url="http://127.0.0.2/")
        await host.unload("p")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["layer"], row["action"], row["allowed"]) for row in rows if row["layer"] == "host"] == [
        ("host", "load", True),
        ("host", "unload", True),
    ]
    assert [row["allowed"] for row in rows if row["capability"] == "http"] == [True, False]


SWAP = """
    class Main(Plugin):
        @export
        async def swap(self, base: str) -> str:
            if await self.files.exists(f"{base}/a"):
                await self.files.rename(f"{base}/a", f"{base}/b")
            await self.files.rename(f"{base}/out", f"{base}/a")
            return await self.files.read_text(f"{base}/a/cache/f")
        @export
        async def read(self, path: str) -> str: return await self.files.read_text(path)
    """


@pytest.fixture
def shared(tmp_path):
    """A directory that a plugin may write, with a link in it that leads out."""
    shared, outside = tmp_path / "shared", tmp_path / "outside"
    (outside / "cache").mkdir(parents=True)
    (outside / "cache" / "f").write_text("secret")
    shared.mkdir()
    (shared / "out").symlink_to(outside)
    return shared


async def test_a_directory_granted_later_is_the_one_that_stood_there_then(host, make, shared):
    """Renames and links that the plugin makes afterwards don't change which directory was granted."""
    (shared / "a" / "cache").mkdir(parents=True)
    (shared / "a" / "cache" / "f").write_text("granted")
    policy = SandboxPolicy.locked_down().allow_path_prefix(shared)
    handle = await host.load(make("p", SWAP, permissions=f"write = ['{shared}']"), policy=policy)
    await handle.update_policy(policy.allow_path_prefix(shared / "a" / "cache"))
    assert await handle.call("swap", base=str(shared)) == "granted"


async def test_a_granted_directory_that_is_not_there_yet_is_no_other_one_later(host, make, shared):
    """A plugin can't redirect a grant by making a link where a granted directory is missing."""
    policy = SandboxPolicy.locked_down().allow_path_prefix(shared, shared / "a" / "cache")
    handle = await host.load(make("p", SWAP, permissions=f"write = ['{shared}']"), policy=policy)
    with pytest.raises(FilesystemDenied, match="leads out"):
        await handle.call("swap", base=str(shared))


async def test_a_granted_directory_may_be_made_later(host, make, tmp_path, shared):
    """The twin: the host makes it where its name led when it was granted, through a link that was there then."""
    (tmp_path / "link").symlink_to(shared)
    granted = tmp_path / "link" / "new"
    policy = SandboxPolicy.locked_down().allow_path_prefix(granted)
    handle = await host.load(make("p", SWAP, permissions=f"write = ['{granted}']"), policy=policy)
    (shared / "new").mkdir()
    (shared / "new" / "f").write_text("made")
    assert await handle.call("read", path=f"{granted}/f") == "made"


@pytest.mark.parametrize("used", [True, False])
async def test_a_policy_is_updated_after_the_files_were_revoked(host, make, tmp_path, used):
    """A new grant does not bring a capability back, nor does its end keep the rest of the grant from being updated."""
    handle = await host.load(make("p", CODE, permissions=PERMISSIONS))
    policy = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
    if used:
        await handle.update_policy(policy)
        await handle.call("save", name="a", text="text")
    await handle.revoke("files", reason="incident 42")
    await handle.update_policy(policy.allow_env("NYX_TEST_ONE"))
    with pytest.raises(Revoked, match="incident 42"):
        await handle.call("read", name="a")
