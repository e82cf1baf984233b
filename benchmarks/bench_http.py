"""What the guarded HTTP client costs, beside plain httpx and httpx2 against the same loopback server.

`run(quick)` returns one row per claim, each with its baseline from the same interleaved rounds. Run alone:
`python -m benchmarks.bench_http [--quick]`.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import httpx

from nyx_stream.capabilities.http import GuardedClient
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import NetworkDenied
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

try:
    import httpx2
except ImportError:
    httpx2 = None  # type: ignore[assignment]

Row = dict[str, Any]
"""`claim`, `reach` (the ratio or microseconds to stay under), `unit`, and medians by `subject`."""

_BODY = b"x" * 200
_PIECE = bytes(256 * 1024)
_MIB = 2**20


class _Server(asyncio.Protocol):
    """Answers `/N` with N bytes, and anything else with a small body; as fast as asyncio can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            size = head.split(b" ", 2)[1][1:]
            self._left = int(size) if size.isdigit() else 0
            length = self._left or len(_BODY)
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % length)
            self._transport.write(b"" if self._left else _BODY)
            self.resume_writing()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        while self._left and not self._full:
            piece = _PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@asynccontextmanager
async def _clients(port: int) -> AsyncIterator[dict[str, Any]]:
    rules = (f"GET http://127.0.0.1:{port}/**", "https://api.example.com/v1/**")
    policy = SandboxPolicy.locked_down().allow_request(*rules).with_limits(response_bytes="4GiB")
    guard = SandboxGuard(policy, plugin="bench")
    clients: dict[str, Any] = {"httpx": httpx.AsyncClient(trust_env=False)}
    if httpx2 is not None:
        clients["httpx2"] = httpx2.AsyncClient(trust_env=False)
    clients["guarded"] = GuardedClient(guard, Lease("bench", "http"))
    try:
        yield clients
    finally:
        for client in clients.values():
            await client.aclose()


async def _interleaved(
    clients: dict[str, Any], rounds: int, measure: Callable[[Any], Awaitable[float]]
) -> dict[str, float]:
    """Medians by client; the rounds take turns, so that a busy moment of the machine falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for client in clients.values():
        await measure(client)
    for _ in range(rounds):
        for name, client in clients.items():
            times[name].append(await measure(client))
    return {name: statistics.median(values) for name, values in times.items()}


def _gets(url: str, count: int, concurrency: int) -> Callable[[Any], Awaitable[float]]:
    async def worker(client: Any) -> None:
        for _ in range(count // concurrency):
            response = await client.get(url)
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}")

    async def measure(client: Any) -> float:
        started = time.perf_counter()
        await asyncio.gather(*[worker(client) for _ in range(concurrency)])
        return (time.perf_counter() - started) / count * 1e6

    return measure


def _download(url: str, size: int) -> Callable[[Any], Awaitable[float]]:
    async def measure(client: Any) -> float:
        started, got = time.perf_counter(), 0
        async with client.stream("GET", f"{url}/{size}") as response:
            async for piece in response.aiter_bytes():
                got += len(piece)
        if got != size:
            raise RuntimeError(f"{got} bytes of {size}")
        return (time.perf_counter() - started) * 1e3

    return measure


def _denied(url: str) -> Callable[[Any], Awaitable[float]]:
    async def measure(client: Any) -> float:
        count = 2_000
        started = time.perf_counter()
        for number in range(count):
            try:
                await client.get(f"{url}/{number}")
            except NetworkDenied:
                continue
            raise RuntimeError("a denied request was not refused")
        return (time.perf_counter() - started) / count * 1e6

    return measure


async def _rows(port: int, quick: bool) -> list[Row]:
    url, rounds, rows = f"http://127.0.0.1:{port}", 5 if quick else 15, []
    async with _clients(port) as clients:
        for concurrency, reach in ((1, 0.75), (32, 0.4)) if quick else ((1, 0.75), (8, 0.5), (32, 0.4), (256, 0.4)):
            count = max(512, concurrency * 8)
            medians = await _interleaved(clients, rounds, _gets(f"{url}/v1/x", count, concurrency))
            claim = f"guarded GET, keep-alive, concurrency {concurrency}"
            rows.append({"claim": claim, "reach": reach, "unit": "us", "baseline": "httpx", **medians})
        size = (64 if quick else 1024) * _MIB
        medians = await _interleaved(clients, 3 if quick else 5, _download(url, size))
        claim = f"guarded download of {size // _MIB} MiB"
        rows.append({"claim": claim, "reach": 1.0, "unit": "ms", "baseline": "httpx", **medians})
        guarded = {"guarded": clients["guarded"]}
        for place, where in (("host", "https://evil.example.net"), ("path", "https://api.example.com/v2")):
            medians = await _interleaved(guarded, rounds, _denied(where))
            claim = f"denied {place}, call to exception, each URL new"
            rows.append({"claim": claim, "reach": 40, "unit": "us", "baseline": None, **medians})
    return rows


def run(quick: bool = False) -> list[Row]:
    """Every claim of this file, measured now on this machine."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        return asyncio.run(_rows(ours.recv(), quick))
    finally:
        server.terminate()
        server.join()


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for row in run(parser.parse_args().quick):
        subjects = {name: round(value, 1) for name, value in row.items() if name in ("httpx", "httpx2", "guarded")}
        figure = row["guarded"] / row[row["baseline"]] if row["baseline"] else row["guarded"]
        print(f"{row['claim']:45} {subjects} {row['unit']}  {figure:.2f} (reach {row['reach']})")


if __name__ == "__main__":
    main()
