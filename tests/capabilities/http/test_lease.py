"""The host revokes the capability: at once, permanently, and with an error that says so."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import NetworkDenied, Revoked
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Server, loopback, reply, until


async def _slow(head: bytes) -> AsyncIterator[bytes]:
    yield head
    await asyncio.Event().wait()


async def test_nothing_is_sent_after_the_lease_ends(kind: Any) -> None:
    """Every way of asking raises Revoked, before any packet."""
    async with Server() as server:
        async with loopback(server, kind=kind).client() as client:
            pass
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            await client.get(server.url)
            plugin.lease.revoke("incident 42")
            for send in (client.get(server.url), client.send(client.build_request("GET", server.url))):
                with pytest.raises(Revoked, match="incident 42") as caught:
                    await send
                assert isinstance(caught.value, client.adapter.library.RequestError)
                assert caught.value.request.url == server.url  # type: ignore[attr-defined]
        assert len(server.requests) == 1
        assert [event.reason for event in plugin.denials] == ["revoked: incident 42"] * 2


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_that_waits_for_its_response_ends_at_once(kind: Any, head: bytes) -> None:
    """Waiting for the head, it raises Revoked and is not cancelled."""
    async with Server(lambda _: _slow(head)) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(timeout=None) as client:
            task = asyncio.create_task(client.get(server.url))
            await until(lambda: server.requests)
            plugin.lease.revoke("over")
            with pytest.raises(Revoked, match="over"):
                await task
            assert not task.cancelled()


@pytest.mark.parametrize("length", [b"", b"content-length: 9\r\n"])
async def test_a_body_under_way_ends_at_once(kind: Any, length: bytes) -> None:
    """Also one that would end with its connection: it is not taken for whole."""
    begun = asyncio.Event()

    async def on_response(_: Any) -> None:
        begun.set()

    async with Server(lambda _: _slow(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nab")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(timeout=None, event_hooks={"response": [on_response]}) as client:
            task = asyncio.create_task(client.get(server.url))
            await begun.wait()
            plugin.lease.revoke("over")
            with pytest.raises(Revoked, match="over"):
                await task


async def test_a_stream_between_two_reads_ends_too(kind: Any) -> None:
    """A plugin that holds an open stream gets no further byte of it."""
    async with Server(lambda _: _slow(b"HTTP/1.1 200 OK\r\n\r\nab")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(timeout=None) as client, client.stream("GET", server.url) as response:
            pieces = response.aiter_raw()
            assert await anext(pieces) == b"ab"
            plugin.lease.revoke("over")
            with pytest.raises(Revoked):
                await anext(pieces)


async def test_a_look_up_under_way_ends_at_once(kind: Any) -> None:
    """Also before there is a connection."""
    network = NamedNetwork(1, {"api.example.com": [["<hang>"]]})
    plugin = Plugin(SandboxPolicy.locked_down().allow_connect_host("api.example.com"), network, kind)
    async with plugin.client(timeout=None) as client:
        task = asyncio.create_task(client.get("http://api.example.com/"))
        await until(lambda: network.looked_up)
        plugin.lease.revoke("over")
        with pytest.raises(Revoked):
            await task


async def test_idle_connections_close_with_the_lease(kind: Any) -> None:
    """The server sees the end of every connection the plugin kept."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(200))
        if await reader.read() == b"":
            ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    plugin = Plugin(SandboxPolicy.locked_down().allow_connect_host("127.0.0.1"), kind=kind)
    async with server, plugin.client() as client:
        await client.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        plugin.lease.revoke("over")
        assert await asyncio.wait_for(ended.wait(), 30)


async def test_finished_requests_leave_nothing_with_the_lease(kind: Any) -> None:
    """A lease holds what is under way and nothing of what is over."""
    async with Server(reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            before = len(plugin.lease._holds)
            for _ in range(3):
                await client.get(server.url)
            with pytest.raises(NetworkDenied):
                await client.get("http://evil.example.net/")
            assert len(plugin.lease._holds) == before
        assert len(plugin.lease._holds) == 0


async def test_a_new_policy_ends_kept_connections(kind: Any) -> None:
    """A connection whose address was allowed by rules of old is not used under new ones."""
    async with Server(reply(200, b"x")) as server:
        network = NamedNetwork(server.port, {"api.example.com": [["10.0.0.7"]]})
        policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com", "10.0.0.0/8")
        plugin = Plugin(policy, network, kind)
        async with plugin.client() as client:
            await client.get("http://api.example.com/")
            plugin.guard.update(policy.deny_connect_host("10.0.0.0/8"))
            with pytest.raises(NetworkDenied, match=r"10\.0\.0\.7"):
                await client.get("http://api.example.com/")
            assert server.accepted == 1
