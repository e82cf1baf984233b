"""A loopback HTTP server in a separate process, fast enough that the benchmarks measure the clients."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.timing import cpu_time

_BODY = b"x" * 200
_PIECE = bytes(256 * 1024)


class _Server(asyncio.Protocol):
    """Answers `/N` with N bytes, and any other path with a small body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            size = head.split(b" ", 2)[1][1:]
            length = int(size) if size.isdigit() else len(_BODY)
            self._left = length if size.isdigit() else 0
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % length)
            self._transport.write(b"" if size.isdigit() else _BODY)
            self.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = 0  # the client may close early; transports accept writes even then

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        asyncio.get_running_loop().call_soon(self._write)  # not inside a write, which may find the connection closed

    def _write(self) -> None:
        while self._left and not self._full and not self._transport.is_closing():
            piece = _PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


@dataclass(frozen=True, slots=True)
class Served:
    """The server: on 127.0.0.1 at `port`, in process `pid`."""

    port: int
    pid: int

    def clock(self) -> float:
        """Returns the CPU time of this process and the server together, or the wall clock if that is unavailable.

        The sum is the duration of a request on an idle machine. It excludes waiting for a processor, which may take
        several times as long on a busy machine. Source: "schedstat" in the kernel's Documentation/scheduler.
        """
        try:
            on_cpu = Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()[0]
        except OSError:
            return time.perf_counter()
        return cpu_time() + int(on_cpu) * 1e-9


@contextmanager
def serving() -> Iterator[Served]:
    """Runs the server until the block exits."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        yield Served(ours.recv(), server.pid or 0)
    finally:
        server.terminate()
        server.join()


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
