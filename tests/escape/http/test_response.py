"""What a hostile server may answer: bombs, endless streams, trickles and switches of protocol."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import LimitExceeded, NetworkDenied
from tests.capabilities.http.loopback import Server, loopback, reply
from tests.escape.http.egress import cases, plugin, tls_server

_MIB = 2**20


def _bomb(size: int, layers: int = 1) -> bytes:
    body = bytes(size)
    for _ in range(layers):
        body = gzip.compress(body)
    return body


async def _read(client: Any, url: str, streamed: bool) -> None:
    if not streamed:
        await client.get(url)
        return
    async with client.stream("GET", url) as response:
        async for piece in response.aiter_bytes():
            assert len(piece) <= 256 * 1024


async def _endless_headers() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for _ in range(1_000):
        yield b"x: y\r\n" * 1_000


async def _endless_interim() -> AsyncIterator[bytes]:
    for _ in range(1_000):
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 100


async def _endless_body() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    for _ in range(1_000):
        yield bytes(_MIB)


async def _endless_trailer() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    for _ in range(10_000):
        yield b"x: y\r\n" * 1_000


async def _framing_only() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for _ in range(10_000):
        yield (b"1;" + b"x" * 10_000 + b"\r\na\r\n") * 10


_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
_ANSWERS = {
    "101": (lambda: _SWITCH, NetworkDenied),
    "200 gzip bomb": (lambda: reply(200, _bomb(64 * _MIB), content_encoding="gzip"), LimitExceeded),
    "200 with 10^6 headers": (_endless_headers, LimitExceeded),
}


@pytest.mark.parametrize("case", cases("response"))
async def test_response_case(case: dict[str, Any], kind: Any, authority: Any) -> None:
    """The answer is refused as a denial or a limit, which retry layers leave alone."""
    answer, expected = _ANSWERS[case["response"]]
    async with tls_server(authority, lambda _: answer()) as server:
        one = plugin(case, authority, server, kind)
        async with one.client() as client:
            with pytest.raises(expected) as caught:
                await client.get(case["url"])
            library = client.adapter.library
            assert isinstance(caught.value, library.RequestError)
            assert not isinstance(caught.value, library.TransportError)
            assert caught.value.request.url == case["url"]
            assert server.accepted == 1


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bomb_costs_no_more_memory_than_its_limit(kind: Any, layers: int, streamed: bool) -> None:
    """Decoded in bounded steps, a body that inflates a thousandfold stops at the limit of the grant."""
    body = _bomb(64 * _MIB, layers)
    codings = ", ".join(["gzip"] * layers)
    async with Server(reply(200, body, content_encoding=codings)) as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.with_limits(response_bytes="4MiB")
        async with one.client() as client:
            tracemalloc.start()
            try:
                with pytest.raises(LimitExceeded) as caught:
                    await _read(client, server.url, streamed)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert peak < 12 * _MIB
        assert (caught.value.plugin, caught.value.limit, caught.value.allowed) == (
            "weather",
            "response_bytes",
            4 * _MIB,
        )


async def test_one_byte_of_a_bomb_inflates_one_step(kind: Any) -> None:
    """Asked for its first kibibyte, the stream inflates no more than a step and stays under the limit."""
    async with (
        Server(reply(200, _bomb(64 * _MIB), content_encoding="gzip")) as server,
        loopback(server, kind=kind).client() as client,
        client.stream("GET", server.url) as response,
    ):
        tracemalloc.start()
        try:
            async for piece in response.aiter_bytes(1024):
                assert len(piece) == 1024
                break
            assert tracemalloc.get_traced_memory()[1] < 2 * _MIB
        finally:
            tracemalloc.stop()


async def test_too_many_codings_are_an_error(kind: Any) -> None:
    """A stack of codings is work without end; the library's DecodingError says so."""
    async with (
        Server(reply(200, b"x", content_encoding=", ".join(["gzip"] * 50))) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(client.adapter.library.DecodingError):
            await client.get(server.url)


@pytest.mark.parametrize("answer", [_endless_body, _endless_trailer, _framing_only, _endless_interim, _endless_headers])
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_does_not_end_is_cut_off(kind: Any, answer: Any, streamed: bool) -> None:
    """Body, trailer, chunk extensions, interim responses or headers without end: a typed error."""
    async with Server(lambda _: answer()) as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.with_limits(response_bytes="1MiB")
        async with one.client() as client:
            with pytest.raises((LimitExceeded, client.adapter.library.RemoteProtocolError)) as caught:
                await _read(client, server.url, streamed)
            assert caught.value.request.url == server.url


async def test_a_declared_length_over_the_limit_is_not_read(kind: Any) -> None:
    """A whole body that says it is too large is refused before it is fetched; a stream of it may be begun."""

    async def answer() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n" + bytes(100_000)

    async with Server(lambda _: answer()) as server, loopback(server, kind=kind).client() as client:
        with pytest.raises(LimitExceeded, match="response_bytes"):
            await client.get(server.url)
        async with client.stream("GET", server.url) as response:
            async for piece in response.aiter_raw():
                assert piece
                break


@pytest.mark.parametrize("pieces", [True, False])
async def test_a_request_body_over_the_limit_is_not_sent_on(kind: Any, pieces: bool) -> None:
    """A plugin may not pour out more than its grant, at once or piece by piece."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async with Server() as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.with_limits(request_bytes="1MiB")
        async with one.client() as client:
            with pytest.raises(LimitExceeded, match="request_bytes"):
                await client.post(server.url, content=endless() if pieces else bytes(2 * _MIB))
            assert (await client.post(server.url, content=bytes(_MIB))).status_code == 200
        assert len(server.requests) == 1


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_trickle_ends_at_the_deadline(kind: Any, part: str) -> None:
    """A server that sends a byte before each timeout is still bound by the request's own deadline."""

    async def answer() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" if part == "head" else b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" if part == "body" else b"x: y\r\n"
            await asyncio.sleep(0.02)

    async with Server(lambda _: answer()) as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.with_limits(request_timeout="300ms")
        async with one.client(timeout=None) as client:
            with pytest.raises(client.adapter.library.TimeoutException):
                await client.get(server.url)


async def test_alternative_services_and_refreshes_are_only_headers(kind: Any) -> None:
    """No header but Location leads anywhere."""
    answer = reply(200, b"x", alt_svc='h3="evil.example.net:443"', refresh="0; url=http://evil.example.net/",
                   link="<http://evil.example.net/>; rel=preload")  # fmt: skip
    async with Server(answer) as server:
        one = loopback(server, kind=kind)
        async with one.client(follow_redirects=True) as client:
            await client.get(server.url)
            await client.get(server.url)
        assert {event.action for event in one.events} == {"GET", "connect"}
        assert server.accepted == 1


async def test_raw_deflate_that_is_a_bomb_is_bounded_too(kind: Any) -> None:
    """The second way of reading deflate is under the same bound as the first."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = compressor.compress(bytes(64 * _MIB)) + compressor.flush()
    async with (
        Server(reply(200, body, content_encoding="deflate")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(LimitExceeded):
            await client.get(server.url)


async def test_an_answer_nobody_asked_for_is_not_the_next_one(kind: Any) -> None:
    """A second response behind the first is thrown away with its connection."""
    second = reply(200, b"poison")
    async with (
        Server(lambda r: reply(200, b"first") + second if r.target == "/one" else reply(200, b"true")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        assert (await client.get(f"{server.url}/one")).text == "first"
        assert (await client.get(f"{server.url}/two")).text == "true"
        assert server.accepted == 2


async def test_a_bomb_does_not_hold_up_the_loop(kind: Any) -> None:
    """While a body inflates to its limit, other tasks of the host run."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with (
        Server(reply(200, _bomb(64 * _MIB), content_encoding="gzip")) as server,
        loopback(server, kind=kind).client() as client,
        client.stream("GET", server.url) as response,
    ):
        task = asyncio.create_task(other())
        with pytest.raises(LimitExceeded):
            await response.aread()
        task.cancel()
        assert turns >= 30


@pytest.mark.parametrize("named", ["zlib", "bz2", "hex", "uu", "rot13", "punycode", "idna", "undefined", "../os"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_charset_that_is_no_charset_decodes_nothing(kind: Any, named: str, streamed: bool) -> None:
    """A server names no codec that would inflate text, take quadratic time for it or fail: such text is UTF-8."""
    body = zlib.compress(b"x" * 1_000)
    async with (
        Server(reply(200, body, content_type=f"text/plain; charset={named}")) as server,
        loopback(server, kind=kind).client() as client,
        client.stream("GET", server.url) as response,
    ):
        if streamed:
            text = "".join([piece async for piece in response.aiter_text()])
        else:
            await response.aread()
            text = response.text
        assert response.encoding == "utf-8"
        assert text == body.decode("utf-8", "replace")


@pytest.mark.parametrize("named", ["iso-8859-1", "UTF-16LE", "shift_jis", "koi8-r", "windows-1252"])
async def test_a_charset_decodes_text(kind: Any, named: str) -> None:
    """The allowed twin: the charsets that documents are in are taken from the Content-Type."""
    async with (
        Server(reply(200, "text".encode(named), content_type=f"text/plain; charset={named}")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        assert (await client.get(server.url)).text == "text"


async def test_a_response_with_two_framings_is_refused(kind: Any) -> None:
    """A length and chunks in one response are two ends of it: the connection is given up, and its bytes with it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        Server(lambda r: head + b"2\r\nin\r\n0\r\n\r\n" if r.target == "/two" else reply(200, b"in")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(client.adapter.library.RemoteProtocolError, match="both"):
            await client.get(f"{server.url}/two")
        assert (await client.get(f"{server.url}/one")).text == "in"
        assert server.accepted == 2
