"""Handing on less than is held: clients and files, narrowed."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import FilesystemDenied, LimitExceeded, NetworkDenied, PolicyError, Revoked
from nyx_stream.plugin_sandbox import SandboxPolicy
from tests.capabilities.files.conftest import MakeWorld, World
from tests.capabilities.http.loopback import Server, loopback, reply, until


async def _stall() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\nab"
    await asyncio.Event().wait()


async def test_a_narrowed_client_sends_what_its_rules_allow(kind: Any) -> None:
    """And refuses the rest, audited, also behind a redirect and for a built request."""

    def answer(asked: Any) -> bytes:
        return reply(302, location="/v2") if asked.target == "/v1/away" else reply(200, b"x")

    async with Server(answer) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(headers={"authorization": "secret"}) as client:
            narrow = client.narrow(f"GET {server.url}/v1/**")
            assert type(narrow) is type(client)
            assert (await narrow.get(f"{server.url}/v1/x")).text == "x"
            assert server.requests[-1].header("authorization") is None
            for send in (
                lambda: narrow.get(f"{server.url}/v2"),
                lambda: narrow.post(f"{server.url}/v1/x"),
                lambda: narrow.send(narrow.build_request("GET", f"{server.url}/v2")),
                lambda: narrow.get(f"{server.url}/v1/away", follow_redirects=True),
            ):
                with pytest.raises(NetworkDenied, match="outside the narrowed grant"):
                    await send()
                assert plugin.denials[-1].reason == "outside the narrowed grant"
            await client.get(f"{server.url}/v2")


async def test_a_client_hands_on_no_more_than_it_holds(kind: Any) -> None:
    """Not by a wider rule, nor at the second step, nor when a new policy grants less."""
    async with Server(reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            for rule in ("https://evil.example", f"GET http://127.0.0.1:{server.port + 1}/", "PURGE https://a.com"):
                with pytest.raises(NetworkDenied, match=r"http narrow .* denied: it is more than what is held"):
                    client.narrow(rule)
            assert [event.action for event in plugin.denials] == ["narrow"] * 3
            narrow = client.narrow(f"GET {server.url}/v1/**")
            with pytest.raises(NetworkDenied, match="more than what is held"):
                narrow.narrow(f"GET {server.url}/v2/**")
            deeper = narrow.narrow(f"GET {server.url}/v1/a")
            await deeper.get(f"{server.url}/v1/a")
            with pytest.raises(NetworkDenied):
                await deeper.get(f"{server.url}/v1/b")
            with pytest.raises(PolicyError):
                client.narrow("not a rule")
            with pytest.raises(ValueError, match="one rule or more"):
                client.narrow()
            plugin.guard.update(SandboxPolicy.locked_down())
            with pytest.raises(NetworkDenied):
                await deeper.get(f"{server.url}/v1/a")


async def test_a_narrowed_client_ends_by_itself_and_with_its_parent(kind: Any) -> None:
    """Streams that were obtained through it end as well; the parent lives on."""
    async with Server(lambda asked: _stall() if asked.target == "/wait" else reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            brief, other = client.narrow(f"GET {server.url}", ttl="50ms"), client.narrow(f"GET {server.url}")
            with pytest.raises(Revoked, match=r"expired: its 0\.05s are over"):
                await brief.get(f"{server.url}/wait", timeout=None)
            assert (await client.get(server.url)).text == "x"
            async with other.stream("GET", f"{server.url}/wait", timeout=None) as response:
                pieces = response.aiter_raw()
                await anext(pieces)
                plugin.lease.revoke("incident 42")
                with pytest.raises(Revoked, match="incident 42"):
                    await anext(pieces)
            with pytest.raises(Revoked, match="incident 42"):
                await other.get(server.url)
            with pytest.raises(Revoked, match="incident 42"):
                client.narrow(f"GET {server.url}")


async def test_closing_a_narrowed_client_closes_nothing_else(kind: Any) -> None:
    """What is under way in it ends; connections are shared, and the parent keeps its own."""
    async with Server(lambda asked: _stall() if asked.target == "/wait" else reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            await client.get(server.url)
            async with client.narrow(f"GET {server.url}") as narrow:
                await narrow.get(server.url)
                assert server.accepted == 1
                task = asyncio.create_task(narrow.get(f"{server.url}/wait", timeout=None))
                await until(lambda: len(server.requests) == 3)
            with pytest.raises(Revoked, match="its client was closed"):
                await task
            assert (await client.get(server.url)).text == "x"
            del narrow
            gc.collect()
            assert not plugin.lease._children


async def test_what_a_narrowed_client_spends_its_parent_spends(kind: Any) -> None:
    """A plugin makes no new budget out of one by narrowing."""
    async with Server(reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            plugin.lease.limit({"requests": 3})
            narrow = client.narrow(f"GET {server.url}", requests=1)
            await narrow.get(server.url)
            with pytest.raises(Revoked, match="requests 1"):
                await narrow.get(server.url)
            wide = client.narrow(f"GET {server.url}", requests=100)
            for _ in range(2):
                await wide.get(server.url)
            with pytest.raises(Revoked, match="requests 3"):
                await wide.get(server.url)


async def test_narrowed_files_do_what_their_prefix_and_mode_allow(world: World) -> None:
    """And nothing beside or above it, nor what a link in it leads to; each refusal is audited."""
    (world.inside / "d" / "out").symlink_to("../f")
    (world.inside / "d" / "in").write_text("deep")
    narrow = world.files.narrow("d/")
    assert await narrow.read_text("d/in") == "deep"
    world.events.clear()
    for operation in (
        lambda: narrow.read_text("f"),
        lambda: narrow.read_text("d/../f"),
        lambda: narrow.read_text("d/out"),
        lambda: narrow.write_text("d/new", "x"),
        lambda: narrow.rename("d/in", "d/other"),
    ):
        with pytest.raises(FilesystemDenied, match="outside the narrowed grant"):
            await operation()
    assert [event.allowed for event in world.events] == [False] * 5
    await world.files.narrow("d", mode="rw").write_text("d/new", "x")
    assert await world.files.read_text("d/out") == "inside"


async def test_files_hand_on_no_more_than_they_hold(make_world: MakeWorld) -> None:
    """Neither another prefix nor another mode, at the first step or the second."""
    world = make_world(mode="r")
    for prefix, mode in (("..", "r"), ("/", "r"), ("../S", "r"), ("d", "rw")):
        with pytest.raises(FilesystemDenied):
            world.files.narrow(prefix, mode=mode)
    narrow = world.files.narrow("d")
    with pytest.raises(FilesystemDenied, match="outside the narrowed grant"):
        narrow.narrow("f")
    await narrow.narrow("d/e").stat("d/e")
    with pytest.raises(ValueError, match='the mode "r" or "rw"'):
        world.files.narrow("d", mode="w")
    with pytest.raises(ValueError, match="opens"):
        world.files.narrow("d", requests=1)


async def test_narrowed_files_end_by_themselves_and_with_their_parent(world: World) -> None:
    """Open files too; closing them leaves the parent's open."""
    narrow, other = world.files.narrow("f"), world.files.narrow("f", opens=1)
    async with narrow.open("f") as theirs, world.files.open("f") as ours, other.open("f") as last:
        with pytest.raises(Revoked, match="opens 1"):
            await other.read_text("f")
        narrow.close()
        with pytest.raises(Revoked, match="revoked: it was closed"):
            await theirs.read()
        assert await ours.read() == "inside"
        world.lease.revoke("incident 42")
        for file in (ours, last):
            with pytest.raises(Revoked, match="incident 42"):
                await file.read()
    with pytest.raises(Revoked, match="incident 42"):
        await other.stat("f")
    with pytest.raises(Revoked, match="incident 42"):
        world.files.narrow("f")


async def test_open_files_count_together(make_world: MakeWorld) -> None:
    """A plugin opens no more files by narrowing."""
    world = make_world(lambda policy: policy.with_limits(open_files=1))
    narrow = world.files.narrow("f")
    async with narrow.open("f"):
        with pytest.raises(LimitExceeded):
            await world.files.open("f")
        with pytest.raises(LimitExceeded):
            await narrow.open("f")
    async with world.files.open("f"):
        with pytest.raises(LimitExceeded):
            await narrow.open("f")
