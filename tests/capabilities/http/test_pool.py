"""The pool: bounded, fair, and never without a place once a turn was granted."""

import asyncio
import random
from math import inf
from typing import Any

import pytest

from nyx_stream.capabilities.http.exchange import Exchange
from nyx_stream.capabilities.http.service import Timeouts
from nyx_stream.capabilities.http.transport import connection as connection_module
from nyx_stream.capabilities.http.transport.pool import Pool
from nyx_stream.capabilities.lease import Lease
from nyx_stream.capabilities.network import Dialer
from nyx_stream.guard import Decision, RequestVerdict, SandboxGuard
from nyx_stream.policy import Limits, SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Server, loopback, reply, until


def _pool(port: int, most: int) -> Pool:
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("*.example.com"))
    return Pool(Dialer(guard, NamedNetwork(port)), most)


def _exchange(host: str = "a.example.com", target: str = "/", *, pool: float | None = None) -> Exchange:
    verdict = RequestVerdict(Decision(True, None, ""), "GET", "http", host, 80, target.encode())
    limits = Limits(request_bytes=1000, response_bytes=1000, header_bytes=1000, request_timeout=30)
    return Exchange(verdict, [(b"Host", host.encode())], b"", Timeouts(pool=pool), limits, Lease("p", "http"))


async def _fetch(pool: Pool, exchange: Exchange) -> bytes:
    connection, _ = await pool.send(exchange)
    pieces, complete = await connection.receive(exchange, inf)
    assert complete
    pool.give_back(connection)
    return b"".join(pieces)


async def test_another_origin_takes_the_place_of_the_oldest_idle_connection() -> None:
    """With every place taken by idle connections, a new origin is served and the longest idle one is closed."""
    async with Server(reply(200, b"x")) as server:
        pool = _pool(server.port, 2)
        for host in ("a.example.com", "b.example.com", "c.example.com", "b.example.com"):
            assert await _fetch(pool, _exchange(host)) == b"x"
        assert server.accepted == 3
        assert {connection.origin[1] for connection in pool._open} == {"b.example.com", "c.example.com"}
        await pool.aclose()


async def test_turns_are_granted_in_order() -> None:
    """Exchanges that wait are served in the order in which they came, also for different origins."""
    async with Server(lambda r: reply(200, r.target.encode())) as server:
        pool = _pool(server.port, 1)
        first = _exchange()
        held, _ = await pool.send(first)
        waiting = [
            asyncio.create_task(_fetch(pool, _exchange(f"{'ab'[n % 2]}.example.com", f"/{n}"))) for n in range(6)
        ]
        await asyncio.sleep(0)
        pool.give_back(held)
        await asyncio.gather(*waiting)
        assert [request.target for request in server.requests] == ["/"] + [f"/{n}" for n in range(6)]
        await pool.aclose()


async def test_whatever_happens_to_exchanges_no_place_is_lost() -> None:
    """Many exchanges of several origins, some cancelled at any moment, some denied: all places serve in the end."""
    chance = random.Random(1)
    async with Server(reply(200, b"x")) as server:
        pool = _pool(server.port, 3)

        async def one(number: int) -> None:
            host = ("a.example.com", "b.example.com", "c.example.com", "evil.example.net")[number % 4]
            task = asyncio.create_task(_fetch(pool, _exchange(host)))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if number % 3 == 0:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*[one(number) for number in range(200)])
        assert len(pool._open) <= 3
        held = [await pool.send(_exchange(pool=30)) for _ in range(3)]
        assert len(pool._open) == 3
        for connection, _ in held:
            pool.give_back(connection)
        await pool.aclose()


async def test_idle_connections_are_closed_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no request comes to notice: the server sees the end."""
    monkeypatch.setattr("nyx_stream.capabilities.http.transport.pool.KEEP_ALIVE", 0.02)
    async with Server(reply(200, b"x")) as server:
        pool = _pool(server.port, 3)
        for host in ("a.example.com", "b.example.com"):
            await _fetch(pool, _exchange(host))
        await until(lambda: not pool._open)
        assert pool._idle == {}
        assert pool._sweep is None
        await pool.aclose()


async def test_a_connection_too_old_is_not_used(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of its use, too."""
    monkeypatch.setattr(connection_module, "KEEP_ALIVE", -1.0)
    async with Server(reply(200, b"x")) as server, loopback(server, kind=kind).client() as client:
        await client.get(server.url)
        await client.get(server.url)
        assert server.accepted == 2
