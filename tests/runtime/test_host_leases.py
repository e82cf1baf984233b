"""Leases of a host's plugins: terms of a policy, changes at run time, and revocation."""

import asyncio

import pytest

from nyx_stream.errors import (
    FilesystemDenied,
    PluginCrashed,
    PluginStateError,
    PolicyError,
    Revoked,
)
from nyx_stream.host import State
from nyx_stream.isolation.registry import CAPABILITIES
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Server, reply
from tests.conformance.machine import missing
from tests.plugin_fixtures import until

CODE = """
    import asyncio

    class Main(Plugin):
        @export
        async def read(self, name: str) -> str: return await self.files.read_text(name)
        @export
        async def save(self, name: str) -> None: await self.files.write_text(name, "kept")
        @export
        async def fetch(self, url: str) -> str: return (await self.http.get(url, timeout=None)).text
        @export
        async def hold(self, name: str) -> str:
            async with self.files.open(name) as file:
                self.log.warning("open")
                await asyncio.Event().wait()
        @export
        async def crash(self) -> None:
            self.spawn(self.fail())
        async def fail(self) -> None: raise RuntimeError("on purpose")
    """
PERMISSIONS = """
    write = ["$DATA"]
    connect = ["127.0.0.1"]
    """


def policy() -> SandboxPolicy:
    return SandboxPolicy.locked_down().allow_path_prefix("$DATA").allow_connect_host("127.0.0.1")


@pytest.fixture
async def server():
    """Answers `/`, and lets everything else wait."""

    async def wait():
        yield b"HTTP/1.1 200 OK\r\n\r\nab"
        await asyncio.Event().wait()

    async with Server(lambda asked: reply(200, b"page") if asked.target == "/" else wait()) as server:
        yield server


def acts(events, *actions):
    """Plugin, capability and reason of the host's acts of those names."""
    return [(e.plugin, e.target, e.reason) for e in events if e.layer == "host" and e.action in actions]


async def test_terms_of_a_policy_hold_from_the_start(host, make, server, events):
    """A policy gives time and budgets; what ends and what is used up is recorded as the host's."""
    granted = policy().with_lease("http", requests=1).with_lease("files", ttl="20ms")
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=granted)
    assert await plugin.call("fetch", url=server.url) == "page"
    assert plugin.leases["http"].left == {"requests": 0}
    for _ in range(2):
        with pytest.raises(Revoked, match=r"http .* denied: used up: requests 1"):
            await plugin.call("fetch", url=server.url)
    await until(lambda: acts(events, "expire"))
    with pytest.raises(Revoked, match=r"files .* denied: expired after 0\.02s"):
        await plugin.call("read", name="a")
    # Which of the two comes first is the machine's matter.
    assert sorted(acts(events, "expire", "spend")) == [
        ("p", "files", "expired after 0.02s"),
        ("p", "http", "used up: requests 1"),
    ]
    assert plugin.leases["files"].reason == "expired after 0.02s"


async def test_a_policy_file_has_terms(host, make, server, tmp_path):
    """`[leases.http]`; faults are told with their lines; the printed policy reads back as itself."""
    file = tmp_path / "policy.toml"
    text = '[allow]\nconnect = ["127.0.0.1"]\n[leases.http]\nttl = "1h"\nrequests = 1\nbytes_in = "1MiB"\n'
    file.write_text(text)
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=file)
    await plugin.call("fetch", url=server.url)
    with pytest.raises(Revoked):
        await plugin.call("fetch", url=server.url)
    file.write_text(SandboxPolicy.from_toml(file).to_toml())
    assert SandboxPolicy.from_toml(file).terms("http").printed() == {
        "ttl": "3600s",
        "requests": 1,
        "bytes_in": "1MiB",
    }
    file.write_text(text + 'seconds = "soon"\n[leases.files]\nbytes_in = 3\n[leases.fire]\n')
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(file)
    told = str(caught.value)
    for fault in ("policy.toml:7: seconds: 'soon' isn't", "policy.toml:9: leases.files.bytes_in", "leases.fire"):
        assert fault in told
    with pytest.raises(PolicyError, match="with_lease: opens: a lease of http has no such term"):
        policy().with_lease("http", opens=3)


async def test_terms_change_at_run_time(host, make, server, events):
    """Named terms begin anew, others run on, `None` lifts; every change is recorded."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    status = await plugin.lease("http", ttl="1h", requests=1)
    assert status.left["requests"] == 1
    await plugin.call("fetch", url=server.url)
    status = await plugin.lease("http", requests=1)
    assert 0 < status.left["ttl"] <= 3600
    await plugin.call("fetch", url=server.url)
    with pytest.raises(Revoked):
        await plugin.call("fetch", url=server.url)
    await plugin.lease("http", ttl=None, requests=None)
    await plugin.call("fetch", url=server.url)
    assert acts(events, "lease") == [
        ("p", "http", "ttl: 3600s, requests: 1"),
        ("p", "http", "requests: 1"),
        ("p", "http", "ttl: none, requests: none"),
    ]
    with pytest.raises(LookupError, match="no capability 'fire'"):
        await plugin.lease("fire", ttl=1)
    with pytest.raises(ValueError, match="opens: a lease of http has no such term"):
        await plugin.lease("http", opens=1)
    await plugin.revoke("http", reason="incident 42")
    with pytest.raises(PluginStateError, match=r"its lease of http has ended \(revoked: incident 42\); reload it"):
        await plugin.lease("http", ttl="1h")


async def test_a_ttl_given_at_run_time_ends_what_is_under_way(host, make, server):
    """A request and an open file of a running call; the call gets Revoked and is not cancelled."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    fetching = asyncio.create_task(plugin.call("fetch", url=f"{server.url}/wait"))
    await until(lambda: server.requests)
    await plugin.lease("http", ttl="10ms")
    with pytest.raises(Revoked, match="expired"):
        await fetching


async def test_a_new_policy_starts_the_terms_that_it_changes(host, make, server):
    """The others run on: a policy that is put in force again gives no new budget."""
    granted = policy().with_lease("http", requests=2)
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=granted)
    await plugin.call("fetch", url=server.url)
    await plugin.update_policy(granted.allow_env("TZ"))
    assert plugin.leases["http"].left == {"requests": 1}
    await plugin.update_policy(granted.with_lease("http", requests=5))
    assert plugin.leases["http"].left == {"requests": 5}
    await plugin.update_policy(policy())
    assert plugin.leases["http"].left == {}


async def test_everything_of_one_plugin_is_revoked_at_once(host, make, server, events):
    """What is under way ends, other plugins are untouched, and each capability is recorded."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    other = await host.load(make("q", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("save", name="a")
    fetching = asyncio.create_task(plugin.call("fetch", url=f"{server.url}/wait"))
    await until(lambda: server.requests)
    await plugin.revoke(reason="incident 42")
    with pytest.raises(Revoked, match="revoked: incident 42"):
        await fetching
    with pytest.raises(Revoked, match="revoked: incident 42"):
        await plugin.call("read", name="a")
    assert acts(events, "revoke") == [("p", name, "incident 42") for name in CAPABILITIES]
    assert await other.call("fetch", url=server.url) == "page"
    await plugin.reload()
    assert await plugin.call("read", name="a") == "kept"


async def test_everything_of_every_plugin_is_revoked_at_once(host, make, server, events):
    """One call of the host for all; a plugin loaded afterwards has its capabilities."""
    plugins = [await host.load(make(name, CODE, permissions=PERMISSIONS), policy=policy()) for name in ("p", "q")]
    tasks = [asyncio.create_task(plugin.call("fetch", url=f"{server.url}/wait")) for plugin in plugins]
    await until(lambda: len(server.requests) == 2)
    await host.revoke_all(reason="incident 42")
    for task in tasks:
        with pytest.raises(Revoked, match="incident 42"):
            await task
    assert len(acts(events, "revoke")) == 2 * len(CAPABILITIES)
    later = await host.load(make("r", CODE, permissions=PERMISSIONS), policy=policy())
    assert await later.call("fetch", url=server.url) == "page"


async def test_a_crash_gives_nothing_back(host, make, server):
    """A plugin that is started again by itself has what it had: no new budget, and nothing that was revoked."""
    granted = policy().with_lease("http", requests=2)
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=granted, on_fail="restart")
    await plugin.call("fetch", url=server.url)
    await plugin.revoke("files", reason="incident 42")
    await plugin.call("crash")
    await until(lambda: plugin.stats().restarts == 1 and plugin.state is State.RUNNING)
    assert plugin.leases["http"].left == {"requests": 1}
    with pytest.raises(Revoked, match="incident 42"):
        await plugin.call("read", name="a")
    await plugin.call("fetch", url=server.url)
    with pytest.raises(Revoked, match="used up"):
        await plugin.call("fetch", url=server.url)
    await plugin.reload()
    assert plugin.leases["http"].left == {"requests": 2}
    with pytest.raises(FileNotFoundError):
        await _cause(plugin.call("read", name="a"))


async def _cause(call):
    try:
        await call
    except Exception as error:
        raise error.__cause__ from None


async def test_a_crashed_plugin_can_be_revoked(host, make):
    """Before it is started again it is the host's to say that it gets nothing."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("crash")
    await until(lambda: plugin.state is State.FAILED)
    await plugin.revoke(reason="it crashed")
    assert plugin.leases["http"].reason == "revoked: it crashed"
    with pytest.raises(PluginCrashed):
        await plugin.call("read", name="a")


async def test_hard_restarts_without_the_capability(host, make, server, events):
    """The plugin's life ends, with everything it held; the next one never has the capability."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.call("save", name="a")
    holding = asyncio.create_task(plugin.call("hold", name="a"))
    await until(lambda: plugin.stats().active)
    await plugin.revoke("files", reason="incident 42", hard=True)
    with pytest.raises((PluginStateError, Revoked)):
        await holding
    assert plugin.state is State.RUNNING
    with pytest.raises(Revoked, match="incident 42"):
        await plugin.call("read", name="a")
    assert await plugin.call("fetch", url=server.url) == "page"
    assert acts(events, "stop") == [("p", "files", "incident 42")]
    await plugin.reload()
    assert await plugin.call("read", name="a") == "kept"


async def test_hard_for_everything_stops(host, make, server, events):
    """One plugin or all: nothing is left to run with, until it is loaded again."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy())
    other = await host.load(make("q", CODE, permissions=PERMISSIONS), policy=policy())
    await plugin.revoke(reason="incident 42", hard=True)
    assert (plugin.state, other.state) == (State.STOPPED, State.RUNNING)
    await host.revoke_all(reason="incident 43", hard=True)
    assert other.state is State.STOPPED
    with pytest.raises(PluginStateError):
        await other.call("fetch", url=server.url)
    assert ("q", "everything", "incident 43") in acts(events, "stop")
    again = await host.load(other.status.folder, policy=policy())
    assert await again.call("fetch", url=server.url) == "page"


async def test_an_unloaded_plugin_has_no_lease(host, make, events):
    """Its timers are gone with it."""
    plugin = await host.load(make("p", CODE, permissions=PERMISSIONS), policy=policy().with_lease("http", ttl="1h"))
    await host.unload("p")
    for act in (plugin.revoke(reason="late"), plugin.lease("http", ttl="1h")):
        with pytest.raises(PluginStateError):
            await act
    assert acts(events, "expire", "revoke") == []


async def test_a_plugin_hands_on_less_under_the_tripwire(host, make, server, events):
    """To a part of itself: narrowing, using and ending what was narrowed trips nothing."""
    code = """
        class Main(Plugin):
            @export
            async def hand_on(self, url: str) -> list[str]:
                await self.files.write_text("a", "kept")
                files, http = self.files.narrow("a", ttl="1h"), self.http.narrow(f"GET {url}/", ttl="50ms")
                found = [await files.read_text("a")]
                files.close()
                for use in (lambda: files.read_text("a"), lambda: http.get(url + "/no"), lambda: self.ask(http, url)):
                    try:
                        await use()
                    except PermissionError as error:
                        found.append(str(error.reason))
                return found
            async def ask(self, http, url):
                while True: await http.get(url)
        """
    plugin = await host.load(make("p", code, permissions=PERMISSIONS), policy=policy())
    assert await plugin.call("hand_on", url=server.url) == [
        "kept",
        "revoked: it was closed",
        "outside the narrowed grant",
        "expired after 0.05s",
    ]
    assert [event for event in events if event.layer == "tripwire"] == []


async def test_a_policy_still_decides_first(host, make):
    """A lease doesn't grant anything: a denied operation stays denied and isn't charged."""
    plugin = await host.load(
        make("p", CODE, permissions=PERMISSIONS),
        policy=SandboxPolicy.locked_down().with_lease("files", opens=1),
    )
    with pytest.raises(FilesystemDenied):
        await plugin.call("read", name="a")
    assert plugin.leases["files"].left == {"opens": 1}


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_a_plugin_that_closed_its_files_does_not_stop_a_new_policy(host, make, isolation):
    """Closing its capability doesn't let a plugin break an operation of the host."""
    if isolation == "process" and (reason := missing()):
        pytest.skip(f"this machine cannot seal a process: {reason}")
    code = f"""{CODE}
        @export
        async def give_up(self) -> None: self.files.close()
    """
    plugin = await host.load(make("p", code, permissions=PERMISSIONS), policy=policy(), isolation=isolation)
    await plugin.call("save", name="a")
    await plugin.call("give_up")
    await plugin.update_policy(policy().allow_path_prefix("/tmp", mode="r"))
    with pytest.raises(Revoked, match="revoked: it was closed"):
        await plugin.call("read", name="a")
