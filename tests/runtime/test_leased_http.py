"""The HTTP capability under terms: requests, bytes and time, for whatever is under way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import Revoked
from nyx_stream.policy.limits import parse_terms
from tests.capabilities.http.loopback import Plugin, Server, loopback, reply


def _limit(plugin: Plugin, **terms: object) -> None:
    plugin.lease.limit(parse_terms("http", terms))


async def _stall(head: bytes) -> AsyncIterator[bytes]:
    yield head
    await asyncio.Event().wait()


@pytest.mark.parametrize("terms", [{"ttl": "50ms"}, {"seconds": "50ms"}])
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\nab"])
async def test_a_request_under_way_ends_when_its_time_is_over(kind: Any, head: bytes, terms: dict[str, str]) -> None:
    """Before, in and after the head of its response, with Revoked that says why, and no cancellation."""
    async with Server(lambda _: _stall(head)) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(timeout=None) as client:
            _limit(plugin, **terms)
            task = asyncio.create_task(client.get(server.url))
            with pytest.raises(Revoked, match=r"expired: its 0\.05s are over|used up: 0\.05s of use") as caught:
                await task
            assert isinstance(caught.value, client.dialect.library.RequestError)
            assert not task.cancelled()


async def test_the_request_after_the_last_is_refused_and_audited(kind: Any) -> None:
    """No packet of it leaves; what a denial refuses costs nothing."""
    async with Server(reply(200, b"x")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            _limit(plugin, requests=2)
            with pytest.raises(PermissionError):
                await client.get("http://evil.example.net/")
            for _ in range(2):
                await client.get(server.url)
            with pytest.raises(Revoked, match="used up: requests 2"):
                await client.get(server.url)
            assert len(server.requests) == 2
            assert plugin.denials[-1].reason == "used up: requests 2"
            _limit(plugin, requests=1)
            await client.get(server.url)


async def test_each_hop_of_a_redirect_is_a_request(kind: Any) -> None:
    """A server cannot make a plugin ask more than it may."""
    async with Server(reply(302, location="/again")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(follow_redirects=True) as client:
            _limit(plugin, requests=3)
            with pytest.raises(Revoked, match="requests 3"):
                await client.get(server.url)
            assert len(server.requests) == 3


async def test_a_plugin_reads_no_byte_beyond_its_budget(kind: Any) -> None:
    """All responses count together, heads included."""
    async with Server(reply(200, b"x" * 1000)) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            _limit(plugin, bytes_in=2500)
            for _ in range(2):
                await client.get(server.url)
            with pytest.raises(Revoked, match="used up: bytes_in 2500B"):
                await client.get(server.url)
            assert plugin.denials[-1].reason == "used up: bytes_in 2500B"


async def test_a_stream_ends_where_the_budget_does(kind: Any) -> None:
    """What was read before is the plugin's."""
    sent = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\nab"
        await sent.wait()
        yield b"c" * 500

    async with Server(lambda _: pieces()) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            _limit(plugin, bytes_in=100)
            async with client.stream("GET", server.url) as response:
                body = response.aiter_raw()
                assert await anext(body) == b"ab"
                sent.set()
                with pytest.raises(Revoked, match="bytes_in"):
                    await anext(body)


async def test_nothing_is_sent_beyond_the_budget(kind: Any) -> None:
    """Bodies count, whole or in pieces, and so do URLs and headers, which carry data as well."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 100

    async with Server(reply()) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            sends = (
                lambda: client.post(server.url, content=b"x" * 1000),
                lambda: client.post(server.url, content=body()),
                lambda: client.get(f"{server.url}/?{'x' * 1000}"),
                lambda: client.get(server.url, headers={"x-data": "x" * 1000}),
            )
            for send in sends:
                _limit(plugin, bytes_out=1000)
                with pytest.raises(Revoked, match="used up: bytes_out 1000B"):
                    await send()
            assert server.requests == []
