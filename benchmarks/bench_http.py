"""The guarded HTTP client beside plain httpx and httpx2, against one loopback server in another process.

Every client keeps its connections alive and reads the whole response. A denied request ends before any packet, so its
figure is the time from the call to the exception.
"""

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import httpx

from benchmarks.measure import Growth, Measure, Result, Row, Series, Target
from benchmarks.peers import peer
from benchmarks.timing import Budget, Loop, interleave, once_each
from nyx_stream.capabilities.http import GuardedClient
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import NetworkDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

_GUARDED, _PLAIN, _NEXT = "guarded", "httpx", "httpx2"
_BODY = b"x" * 200
_PIECE = bytes(256 * 1024)
_MIB = 2**20
_SAMPLE = 0.03
"""Seconds that one sample of requests takes at least."""
_REACH = {1: 0.75, 32: 0.4}
"""By concurrency, what part of plain httpx's time a guarded request may take."""


def run(budget: Budget) -> Iterator[Result]:
    with _server() as port, asyncio.Runner() as runner:
        clients = runner.run(_open(port))
        try:
            yield from _gets(budget, runner, clients, port)
            yield from _downloads(budget, runner, clients, port)
            yield from _denials(budget, runner, clients[_GUARDED])
        finally:
            runner.run(_close(clients))


def _gets(budget: Budget, runner: asyncio.Runner, clients: Mapping[str, Any], port: int) -> Iterator[Result]:
    url = f"http://127.0.0.1:{port}/v1/x"
    steps = (1, 8, 32) if budget.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
    loops = {(name, step): _fetching(runner, clients[name], url, step) for name in clients for step in steps}
    # A request is some hundred microseconds and two switches of process: shorter samples would measure the scheduler.
    longer = Budget(budget.quick, budget.rounds, max(budget.sample, _SAMPLE))
    times = interleave(longer, {f"{name}, concurrency {step}": loop for (name, step), loop in loops.items()})
    for step, reach in _REACH.items():
        claim = f"guarded GET, keep-alive, concurrency {step}"
        measured = {name: times[f"{name}, concurrency {step}"] for name in clients}
        yield Row(f"{claim}, against httpx", measured[_GUARDED], measured[_PLAIN], Target("ratio", reach))
        if _NEXT in measured:
            yield Row(f"{claim}, against httpx2", measured[_GUARDED], measured[_NEXT], Target("ratio", 1.15))
        else:
            yield Row(f"{claim}, against httpx2", target=Target("ratio", 1.15), reason=str(peer(_NEXT)))
    curves: dict[str, list[tuple[float, Measure]]] = {
        name: [(step, times[f"{name}, concurrency {step}"]) for step in steps] for name in clients
    }
    yield _growth("a request by concurrency", "requests at once", curves)


def _downloads(budget: Budget, runner: asyncio.Runner, clients: Mapping[str, Any], port: int) -> Iterator[Result]:
    sizes = [0, _MIB // 16, _MIB, 16 * _MIB, 64 * _MIB if budget.quick else 1024 * _MIB]
    curves: dict[str, list[tuple[float, Measure]]] = {name: [] for name in clients}
    for size in sizes:
        url = f"http://127.0.0.1:{port}/bytes/{size}"
        loops = {name: _streaming(runner, client, url, size) for name, client in clients.items()}
        times = once_each(budget, loops, rounds=5)
        for name in clients:
            curves[name].append((size, times[name]))
    last = {name: points[-1][1] for name, points in curves.items()}
    claim = f"guarded download of {sizes[-1] // _MIB} MiB, against httpx"
    yield Row(claim, last[_GUARDED], last[_PLAIN], Target("ratio", 1.0))
    yield _growth("a streamed body by size", "bytes", curves)


def _denials(budget: Budget, runner: asyncio.Runner, client: Any) -> Iterator[Row]:
    places = {
        "denied host": "https://evil.example.net",
        "denied path of a granted host": "https://api.example.com/v2",
    }
    times = interleave(budget, {name: _refused(runner, client, url) for name, url in places.items()})
    for name in places:
        yield Row(f"{name}, call to exception, every URL a new one", times[name], target=Target("s", 40e-6))


def _growth(title: str, label: str, curves: Mapping[str, list[tuple[float, Measure]]]) -> Growth:
    names = [_GUARDED, *(name for name in curves if name not in (_GUARDED, _PLAIN)), _PLAIN]
    return Growth(title, label, tuple(Series(name, tuple(curves[name])) for name in names))


# Loops.


def _fetching(runner: asyncio.Runner, client: Any, url: str, concurrency: int) -> Loop:
    async def fetch(count: int) -> None:
        for _ in range(count):
            response = await client.get(url)
            if response.content != _BODY:
                raise RuntimeError(f"{response.status_code}, {len(response.content)} bytes")

    async def repeat(count: int) -> float:
        each = -(-count // concurrency)
        start = time.perf_counter()
        await asyncio.gather(*[fetch(each) for _ in range(concurrency)])
        return (time.perf_counter() - start) * count / (each * concurrency)

    return lambda count: runner.run(repeat(count))


def _streaming(runner: asyncio.Runner, client: Any, url: str, size: int) -> Loop:
    async def download() -> None:
        got = 0
        async with client.stream("GET", url) as response:
            async for piece in response.aiter_bytes():
                got += len(piece)
        if got != size:
            raise RuntimeError(f"{got} bytes of {size}")

    return _repeated(runner, download)


def _refused(runner: asyncio.Runner, client: Any, url: str) -> Loop:
    numbers = itertools.count()

    async def refuse() -> None:
        try:
            await client.get(f"{url}/{next(numbers)}")
        except NetworkDenied:
            return
        raise RuntimeError("a denied request was not refused")

    return _repeated(runner, refuse)


def _repeated(runner: asyncio.Runner, once: Callable[[], Awaitable[None]]) -> Loop:
    async def repeat(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            await once()
        return time.perf_counter() - start

    return lambda count: runner.run(repeat(count))


# Clients and their server.


async def _open(port: int) -> dict[str, Any]:
    rules = (f"GET http://127.0.0.1:{port}/**", "https://api.example.com/v1/**")
    policy = SandboxPolicy.locked_down().allow_request(*rules).with_limits(response_bytes="4GiB")
    guarded = GuardedClient(SandboxGuard(policy, plugin="bench"), Lease("bench", "http"), timeout=None)
    clients: dict[str, Any] = {_GUARDED: guarded, _PLAIN: httpx.AsyncClient(trust_env=False, timeout=None)}
    library = peer(_NEXT)
    if not isinstance(library, str):
        clients[_NEXT] = library.AsyncClient(trust_env=False, timeout=None)
    return clients


async def _close(clients: Mapping[str, Any]) -> None:
    for client in clients.values():
        await client.aclose()


class _Answering(asyncio.Protocol):
    """Answers `/bytes/N` with N bytes and anything else with `_BODY`, as fast as asyncio can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = b""
        self._left = 0
        self._full = False

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            _, found, size = head.split(b" ", 2)[1].partition(b"/bytes/")
            self._left = int(size) if found else 0
            length = self._left if found else len(_BODY)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % length
            self._transport.write(head if found else head + _BODY)
            self._pour()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._pour()

    def _pour(self) -> None:
        while self._left and not self._full:
            piece = _PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


@contextmanager
def _server() -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
