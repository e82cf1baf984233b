"""A loopback HTTP server in a process of its own, as fast as asyncio can, so that the clients are what is timed."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

_BODY = b"x" * 200
_PIECE = bytes(256 * 1024)


class _Server(asyncio.Protocol):
    """Answers `/N` with N bytes, and anything else with a small body."""

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

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        while self._left and not self._full:
            piece = _PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


@contextmanager
def serving() -> Iterator[int]:
    """Runs the server; yields its port on 127.0.0.1."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        yield ours.recv()
    finally:
        server.terminate()
        server.join()


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
