"""The server that the cases talk to: one path for each behaviour."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from urllib.parse import unquote

from tests.capabilities.http.loopback import Answer, Received, reply

BIG = bytes(range(256)) * 4096
_HEAD = b"HTTP/1.1 200 Said\r\n"


def _seen(received: Received) -> bytes:
    headers = sorted([name.lower(), value] for name, value in received.headers)
    seen = {"method": received.method, "target": received.target, "headers": headers, "size": len(received.body)}
    return reply(body=json.dumps(seen).encode(), content_type="application/json")


def _digest(received: Received) -> bytes:
    framing = [name.lower() for name, _ in received.headers if name.lower() in ("content-length", "transfer-encoding")]
    told = [len(received.body), hashlib.sha256(received.body).hexdigest(), framing, received.header("content-type")]
    return reply(body=json.dumps(told).encode(), content_type="application/json")


def _challenge(received: Received) -> bytes:
    if received.header("authorization"):
        return reply()
    return reply(401, www_authenticate='Digest realm="r", nonce="n", qop="auth", algorithm="MD5"')


def _hang(_: Received) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    return pieces()


def _slow(_: Received) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        yield _HEAD + b"content-length: 100000\r\n\r\nbegin"
        await asyncio.Event().wait()

    return pieces()


def _pieces(*pieces: bytes) -> Answer:
    def answer(_: Received) -> AsyncIterator[bytes]:
        async def say() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return say()

    return answer


def _forever(_: Received) -> AsyncIterator[bytes]:
    async def say() -> AsyncIterator[bytes]:
        yield _HEAD + b"transfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    return say()


PATHS: dict[str, Answer] = {
    "/hello": lambda _: reply(body=b"hello", content_type="text/plain"),
    "/seen": _seen,
    "/echo": lambda received: reply(body=received.body),
    "/echo-once": lambda received: reply(body=received.body, connection="close"),
    "/digest": _digest,
    "/empty": lambda _: reply(),
    "/nothing": lambda _: b"HTTP/1.1 204 Said\r\n\r\n",
    "/big": lambda received: reply(body=BIG)[: None if received.method != "HEAD" else -len(BIG)],
    "/chunks": _pieces(
        _HEAD + b"transfer-encoding: chunked\r\n\r\n", b"4\r\none\n\r\n", b"4\r\ntwo\n\r\n", b"0\r\n\r\n"
    ),
    "/gzip": lambda _: reply(body=gzip.compress(b"zip" * 50_000, mtime=0), content_encoding="gzip"),
    "/bad-gzip": lambda _: reply(body=b"no gzip", content_encoding="gzip"),
    "/endless-header": lambda _: reply(body=b"x", x_long="h" * 8000),
    "/until-close": _pieces(_HEAD + b"connection: close\r\n\r\n", b"until the end"),
    "/to": lambda received: reply(302, location=unquote(received.target.partition("?")[2])),
    "/circle": lambda _: reply(302, location="/circle"),
    "/cookie": lambda _: reply(set_cookie="c=1; Path=/"),
    "/challenge": _challenge,
    "/switch": lambda _: b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "/cut": _pieces(_HEAD + b"content-length: 100000\r\n\r\nbegin"),
    "/garbage": _pieces(b"what?\r\n\r\n"),
    "/hang": _hang,
    "/slow": _slow,
    "/too-large": lambda _: reply(body=bytes(4_000_001)),
    "/too-long": _forever,
    "/bomb": lambda _: reply(body=gzip.compress(bytes(64_000_000), mtime=0), content_encoding="gzip"),
    "/heady": lambda _: reply(x_long="h" * 70_000),
}


def answer(received: Received) -> bytes | AsyncIterator[bytes]:
    """What the server does with a request."""
    return PATHS[received.target.partition("?")[0]](received)
