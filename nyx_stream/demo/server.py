"""A small HTTP server on loopback, so that the demos send real requests without a network."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_FORECASTS = {"oslo": (-4, "snow"), "lisbon": (17, "sun")}
_FEED = (b"06:00 -4 snow\n", b"07:00 -3 snow\n")
_LINE_INTERVAL = 0.02
"""Seconds between two lines of the feed."""
_HEAD_TIMEOUT = 10.0
"""Seconds within which a client must send its request."""


@asynccontextmanager
async def weather_service() -> AsyncIterator[int]:
    """Serves `/v1/<city>`, `/v1/live` (a feed that stops sending) and `/internal/keys` on loopback; yields the port."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode("ascii", "replace")
        if path == "/v1/live":
            await _feed(reader, writer)
            return
        status, body = _page(path)
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client disconnected
    finally:
        writer.close()


async def _feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends the lines of the feed and then nothing more, so that the client keeps waiting."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
    for line in _FEED:
        writer.write(line)
        await writer.drain()
        await asyncio.sleep(_LINE_INTERVAL)
    await reader.read()  # until the client disconnects


def _page(path: str) -> tuple[str, bytes]:
    if path == "/internal/keys":
        return "200 OK", b'{"key":"this should never be seen"}'
    city = path.removeprefix("/v1/")
    if city not in _FORECASTS:
        return "404 Not Found", b"{}"
    degrees, sky = _FORECASTS[city]
    return "200 OK", json.dumps({"city": city, "degrees": degrees, "sky": sky}).encode()
