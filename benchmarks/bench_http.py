"""The guarded HTTP client, next to plain httpx and its peers, against one loopback server.

A request is timed by the CPU time of client and server together: the ratio includes the server's share, which is the
same for all, and excludes waiting for a processor. A download is timed by the wall clock. Every client keeps its
connections alive; the guarded one checks every request and every connection.
"""

import asyncio
import ipaddress
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from benchmarks.http_server import Served, serving
from benchmarks.measure import Growth, Measure, Result, Row, Series, Target
from benchmarks.peers import peer, version
from benchmarks.timing import Budget, Loop, awaited, cpu_time, interleave, once_each
from nyx_stream.capabilities.http import GuardedClient
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import NetworkDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

_MIB = 1 << 20


def run(budget: Budget) -> Iterator[Result]:
    with serving() as served, asyncio.Runner() as runner:
        clients: dict[str, Any] = {}
        missing: dict[str, str] = {}
        closing = _clients(served.port, clients, missing)
        runner.run(anext(closing))
        try:
            yield from _requests(budget, runner, clients, missing, served)
            yield from _bodies(budget, runner, clients, f"http://127.0.0.1:{served.port}")
            yield from _denied(budget, runner, clients["guarded"])
        finally:
            runner.run(_finish(closing))


async def _clients(port: int, clients: dict[str, Any], missing: dict[str, str]) -> AsyncGenerator[None, None]:
    """Fills `clients` by name, and `missing` with the reason for each absent peer. Closes the clients when resumed."""
    rules = (f"GET http://127.0.0.1:{port}/**", "https://api.example.com/v1/**")
    policy = SandboxPolicy.locked_down().allow_request(*rules).with_limits(response_bytes="4GiB", queue=1024)
    clients["guarded"] = GuardedClient(SandboxGuard(policy, plugin="bench"), Lease("bench", "http"))
    clients["httpx"] = httpx.AsyncClient(trust_env=False)
    httpx2 = peer("httpx2")
    if isinstance(httpx2, str):
        missing["httpx2"] = httpx2
    else:
        clients["httpx2"] = httpx2.AsyncClient(trust_env=False)
    yield
    for client in clients.values():
        await client.aclose()


async def _finish(closing: AsyncGenerator[None, None]) -> None:
    with suppress(StopAsyncIteration):
        await anext(closing)


def _curves(clients: Mapping[str, Any]) -> list[str]:
    """Returns the names in chart order, the baseline last."""
    return sorted(clients, key=lambda name: (name == "httpx", name))


def _get(runner: asyncio.Runner, client: Any, served: Served, tasks: int) -> Loop:
    url = f"http://127.0.0.1:{served.port}/v1/x"

    async def get() -> None:
        response = await client.get(url)
        if response.status_code != 200:
            raise RuntimeError(f"status {response.status_code}")

    return awaited(runner, get, tasks=tasks, clock=served.clock)


def _requests(
    budget: Budget, runner: asyncio.Runner, clients: Mapping[str, Any], missing: Mapping[str, str], served: Served
) -> Iterator[Result]:
    bounds = {1: 0.75, 32: 0.4}
    numbers = [1, 8, 32, *([] if budget.quick else [256])]
    times: dict[int, dict[str, Measure]] = {}
    for tasks in numbers:
        loops = {name: _get(runner, client, served, tasks) for name, client in clients.items()}
        # Many short rounds: the loops wait for another process, and a busy moment must not affect half of them.
        long_enough = Budget(budget.quick, budget.rounds, max(budget.sample, 5e-3 + tasks * 5e-4))
        times[tasks] = interleave(long_enough, loops, rounds=budget.rounds if tasks in bounds else budget.curve)
    for tasks, bound in bounds.items():
        at = times[tasks]
        claim = f"guarded GET, keep-alive, concurrency {tasks}"
        yield Row(f"{claim}, against httpx", at["guarded"], at["httpx"], Target("ratio", bound))
        yield Row(
            f"{claim}, against httpx2",
            at["guarded"] if "httpx2" in at else None,
            at.get("httpx2"),
            Target("ratio", 1.15),
            missing.get("httpx2", ""),
        )
    yield Growth(
        "a GET by concurrency, time per request",
        "requests at a time",
        tuple(Series(name, tuple((tasks, times[tasks][name]) for tasks in numbers)) for name in _curves(clients)),
    )
    for module, package in (("httpx_secure", "httpx-secure"), ("ssrfguard.httpx", "ssrfguard")):
        yield from _peer(budget, runner, clients["guarded"], module, package, served)


def _peer(
    budget: Budget, runner: asyncio.Runner, guarded: Any, module: str, package: str, served: Served
) -> Iterator[Row]:
    claim = f"guarded GET, keep-alive, concurrency 1, against {package}"
    found = peer(module)
    if isinstance(found, str):
        yield Row(claim, reason=found)
        return
    client = _PEERS[package](found, served.port)
    try:
        loops = {"guarded": _get(runner, guarded, served, 1), version(package): _get(runner, client, served, 1)}
        times = interleave(budget, loops)
        yield Row(claim, times["guarded"], times[version(package)])
    except Exception as error:  # a peer may refuse a loopback server in any way
        yield Row(claim, reason=f"{version(package)}: {type(error).__name__}: {error}")
    finally:
        runner.run(client.aclose())


def _httpx_secure(module: Any, port: int) -> Any:
    client = httpx.AsyncClient(trust_env=False)
    # Loopback is not globally reachable, so the peer needs a custom validator.
    module.httpx_ssrf_protection(
        client, custom_validator=lambda *target: target[2] == port, check_globally_reachable=False
    )
    return client


def _ssrfguard(module: Any, port: int) -> Any:
    loopback = (ipaddress.ip_network("127.0.0.1"),)
    policy = module.Policy(allowed_networks=loopback, allowed_ports=frozenset({port}))
    return module.AsyncClient(policy=policy, trust_env=False)


_PEERS: Mapping[str, Callable[[Any, int], Any]] = {"httpx-secure": _httpx_secure, "ssrfguard": _ssrfguard}


def _bodies(budget: Budget, runner: asyncio.Runner, clients: Mapping[str, Any], origin: str) -> Iterator[Result]:
    size = (128 if budget.quick else 1024) * _MIB
    sizes = [0, 1 << 10, 1 << 15, _MIB, 32 * _MIB, *([] if budget.quick else [256 * _MIB, 1024 * _MIB])]
    curves: dict[str, list[tuple[float, Measure]]] = {name: [] for name in clients}
    for size in sizes:
        loops = {name: _download(runner, client, f"{origin}/{size}", size) for name, client in clients.items()}
        for name, measure in once_each(budget, loops, rounds=3 if budget.quick else 5).items():
            curves[name].append((size, measure))
    loops = {name: _download(runner, clients[name], f"{origin}/{size}", size) for name in ("guarded", "httpx")}
    times = once_each(budget, loops, rounds=3 if budget.quick else 7)
    yield Row(
        f"guarded download of {size // _MIB:,} MiB inline, against httpx",
        times["guarded"],
        times["httpx"],
        Target("ratio", 1),
    )
    series = tuple(Series(name, tuple(curves[name])) for name in _curves(clients))
    yield Growth("a download by its size (an empty body at 1)", "bytes", series)


def _download(runner: asyncio.Runner, client: Any, url: str, size: int) -> Loop:
    async def download() -> None:
        got = 0
        async with client.stream("GET", url) as response:
            async for piece in response.aiter_bytes():
                got += len(piece)
        if got != size:
            raise RuntimeError(f"{got} bytes of {size}")

    return awaited(runner, download, clock=time.perf_counter)


def _denied(budget: Budget, runner: asyncio.Runner, client: Any) -> Iterator[Row]:
    numbers = itertools.count()
    places = {"host": "https://evil.example.net", "path": "https://api.example.com/v2"}

    def refused(url: str) -> Callable[[], Awaitable[None]]:
        async def get() -> None:
            try:
                await client.get(f"{url}/{next(numbers)}")
            except NetworkDenied:
                return
            raise RuntimeError(f"{url} was not refused")

        return get

    loops = {name: awaited(runner, refused(url), clock=cpu_time) for name, url in places.items()}
    reason = "httpx takes nearly half to parse the URL, the guard two fifths to read its parts and decide"
    for name, measure in interleave(budget, loops).items():
        yield Row(f"denied request ({name}), from call to exception", measure, None, Target("s", 40e-6), reason)
