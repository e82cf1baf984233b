"""The guarded client does what users of httpx expect of an AsyncClient."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import NetworkDenied, Revoked
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Received, Server, loopback, reply


async def test_is_an_async_client_and_its_answers_are_responses(kind: Any) -> None:
    """SDKs check by isinstance: client, response and request are the library's own classes or subclasses."""
    async with (
        Server(reply(200, b'{"a": 1}', content_type="application/json")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        library = client.adapter.library
        response = await client.get(server.url, params={"q": "x y"})
        assert isinstance(client, library.AsyncClient)
        assert isinstance(response, library.Response)
        assert isinstance(response.request, library.Request)
        assert response.json() == {"a": 1}
        assert response.elapsed.total_seconds() > 0
        assert response.num_bytes_downloaded == 8
        assert response.reason_phrase == "Said"
        assert response.http_version == "HTTP/1.1"
        assert response.is_closed
    assert server.requests[0].target == "/?q=x%20y" or server.requests[0].target == "/?q=x+y"
    assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"


async def test_one_connection_serves_many_requests(kind: Any) -> None:
    """Keep-alive: requests one after the other share a connection."""
    async with Server(reply(200, b"x")) as server, loopback(server, kind=kind).client() as client:
        for _ in range(5):
            assert (await client.get(server.url)).text == "x"
        assert server.accepted == 1


async def test_a_connection_that_the_server_closed_is_not_used_again(kind: Any) -> None:
    """The server ends its side while the connection idles; the next request gets a new one."""
    async with Server(reply(200, b"x", connection="close")) as server, loopback(server, kind=kind).client() as client:
        for _ in range(3):
            assert (await client.get(server.url)).text == "x"
        assert server.accepted == 3


async def test_requests_at_once_get_their_own_answers(kind: Any) -> None:
    """Thirty-two concurrent requests: none reads another's body."""
    async with (
        Server(lambda r: reply(200, r.target.encode())) as server,
        loopback(server, kind=kind).client() as client,
    ):
        responses = await asyncio.gather(*[client.get(f"{server.url}/{n}") for n in range(32)])
        assert [response.text for response in responses] == [f"/{n}" for n in range(32)]


async def test_more_requests_than_connections_wait_their_turn() -> None:
    """The pool holds no more connections than the policy's limit, and serves every request."""
    async with Server(lambda r: reply(200, r.target.encode())) as server:
        plugin = loopback(server)
        plugin.policy = plugin.policy.with_limits(connections=2)
        async with plugin.client() as client:
            responses = await asyncio.gather(*[client.get(f"{server.url}/{n}") for n in range(20)])
        assert [response.text for response in responses] == [f"/{n}" for n in range(20)]
        assert server.accepted == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_bodies_go_up_whole_and_in_pieces(kind: Any, method: str) -> None:
    """Bytes are sent with their length, a generator's pieces chunked, forms and JSON encoded."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b""
        yield b"two"

    async with Server(lambda r: reply(200, r.body)) as server, loopback(server, kind=kind).client() as client:
        assert (await client.request(method, server.url, content=b"whole")).content == b"whole"
        assert (await client.request(method, server.url, content=pieces())).content == b"onetwo"
        assert (await client.request(method, server.url, json={"a": 1})).json() == {"a": 1}
        assert (await client.request(method, server.url, data={"a": "1"})).text == "a=1"
        upload = await client.request(method, server.url, files={"f": ("n.txt", b"inside")})
        assert b"inside" in upload.content
        assert server.requests[1].header("transfer-encoding") == "chunked"


async def test_a_generator_that_fails_ends_the_request(kind: Any) -> None:
    """An error of the plugin's own body reaches the plugin as it is, and its connection is not used again."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError("mine")

    async with Server() as server, loopback(server, kind=kind).client() as client:
        with pytest.raises(LookupError, match="mine"):
            await client.post(server.url, content=pieces())
        assert (await client.get(server.url)).status_code == 200


async def test_a_response_streams(kind: Any) -> None:
    """The pieces of a body arrive as they are sent, raw, as bytes, as text and as lines."""

    async def answer() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        for piece in (b"one\n", b"two\n"):
            yield b"4\r\n" + piece + b"\r\n"
        yield b"0\r\n\r\n"

    async with Server(lambda _: answer()) as server, loopback(server, kind=kind).client() as client:
        for read in ("aiter_raw", "aiter_bytes"):
            async with client.stream("GET", server.url) as response:
                assert b"".join([piece async for piece in getattr(response, read)()]) == b"one\ntwo\n"
        async with client.stream("GET", server.url) as response:
            assert [line async for line in response.aiter_lines()] == ["one", "two"]
        async with client.stream("GET", server.url) as response:
            assert [piece async for piece in response.aiter_bytes(3)] == [b"one", b"\ntw", b"o\n"]
        async with client.stream("GET", server.url) as response:
            assert await response.aread() == b"one\ntwo\n"
            assert [piece async for piece in response.aiter_bytes()] == [b"one\ntwo\n"]


async def test_a_stream_left_early_closes_its_connection(kind: Any) -> None:
    """What was not read to its end cannot be used again, and a second reading is refused as httpx refuses it."""
    body = b"x" * 2_000_000
    async with Server(reply(200, body)) as server, loopback(server, kind=kind).client() as client:
        async with client.stream("GET", server.url) as response:
            async for _ in response.aiter_bytes():
                break
        with pytest.raises(client.adapter.library.StreamError):
            await response.aread()
        assert (await client.get(server.url)).content == body
        assert server.accepted == 2


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("gzip, deflate", lambda data: zlib.compress(gzip.compress(data))),
        ("identity", bytes),
        ("nonsense", bytes),
    ],
)
async def test_bodies_are_decoded(kind: Any, coding: str, encode: Any) -> None:
    """Every coding that is offered is taken off, read whole and streamed; unknown ones are left."""
    body = b"0123456789" * 50_000
    async with (
        Server(reply(200, encode(body), content_encoding=coding)) as server,
        loopback(server, kind=kind).client() as client,
    ):
        assert (await client.get(server.url)).content == body
        async with client.stream("GET", server.url) as response:
            assert b"".join([piece async for piece in response.aiter_bytes()]) == body
        async with client.stream("GET", server.url) as response:
            pieces = [piece async for piece in response.aiter_bytes(1000)]
            assert {len(piece) for piece in pieces} == {1000}
            assert b"".join(pieces) == body


async def test_a_body_that_is_not_what_it_says_is_a_decoding_error(kind: Any) -> None:
    """A broken coding is the library's DecodingError."""
    async with (
        Server(reply(200, b"not gzip", content_encoding="gzip")) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(client.adapter.library.DecodingError) as caught:
            await client.get(server.url)
        assert caught.value.request.url == server.url


async def test_only_codings_that_can_be_bounded_are_offered(kind: Any) -> None:
    """Whatever the library or the plugin offers to accept, br and zstd are not sent."""
    async with Server() as server, loopback(server, kind=kind).client() as client:
        await client.get(server.url, headers={"Accept-Encoding": "br, gzip;q=0.5, zstd"})
        await client.get(server.url, headers={"Accept-Encoding": "br"})
        assert [request.header("accept-encoding") for request in server.requests] == ["gzip;q=0.5", "identity"]


async def test_head_has_no_body(kind: Any) -> None:
    """A response to HEAD may declare a length and sends nothing."""
    async with Server(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n") as server:
        async with loopback(server, kind=kind).client() as client:
            assert (await client.head(server.url)).content == b""
            assert (await client.head(server.url)).headers["content-length"] == "999999999999"
        assert server.accepted == 1


async def test_cookies_stay_with_the_plugin_that_got_them(kind: Any) -> None:
    """Two plugins ask one server: each has its own jar, and sends back only its own cookie."""

    def answer(request: Received) -> bytes:
        return reply(200, (request.header("cookie") or "").encode(), set_cookie=f"from={request.target[1:]}; Path=/")

    async with (
        Server(answer) as server,
        loopback(server, kind=kind).client() as one,
        loopback(server, kind=kind).client() as two,
    ):
        await one.get(f"{server.url}/one")
        await two.get(f"{server.url}/two")
        assert (await one.get(f"{server.url}/one")).text == "from=one"
        assert (await two.get(f"{server.url}/two")).text == "from=two"
        assert dict(one.cookies) == {"from": "one"}


async def test_a_plugin_that_closes_its_client_closes_nobody_elses(kind: Any) -> None:
    """Every plugin has its own client and pool."""
    async with (
        Server(reply(200, b"x")) as server,
        loopback(server, kind=kind).client() as one,
        loopback(server, kind=kind).client() as two,
    ):
        await one.get(server.url)
        await two.get(server.url)
        await one.aclose()
        assert (await two.get(server.url)).text == "x"
        with pytest.raises(RuntimeError, match="closed"):
            await one.get(server.url)


async def test_base_url_headers_and_params_of_the_client_apply(kind: Any) -> None:
    """The options that are a plugin's to choose work as in httpx."""
    async with Server() as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client(base_url=f"{server.url}/api", headers={"X-A": "1"}, params={"p": "1"}) as client:
            await client.get("/v1")
            client.base_url = f"{server.url}/other"
            await client.get("/v1")
        assert [request.target for request in server.requests] == ["/api/v1?p=1", "/other/v1?p=1"]
        assert server.requests[0].header("x-a") == "1"


async def test_event_hooks_run_and_may_read(kind: Any) -> None:
    """Hooks see every request and response; a hook that changes the request is still judged."""
    seen: list[str] = []
    elsewhere = False

    async def on_request(request: Any) -> None:
        seen.append(request.method)
        if elsewhere:
            request.url = type(request.url)("https://evil.example.net/")

    async def on_response(response: Any) -> None:
        seen.append((await response.aread()).decode())

    async with Server(reply(200, b"x")) as server:
        hooks = {"request": [on_request], "response": [on_response]}
        async with loopback(server, kind=kind).client(event_hooks=hooks) as client:
            assert (await client.get(server.url)).text == "x"
            assert seen == ["GET", "x"]
            elsewhere = True
            with pytest.raises(NetworkDenied):
                await client.get(server.url)
    assert server.accepted == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirects_change_the_method_as_in_httpx(kind: Any, status: int, method: str) -> None:
    """All five kinds are followed on one origin; 307 and 308 keep method and body, the others turn POST into GET."""

    def answer(request: Received) -> bytes:
        if request.target == "/a":
            return reply(status, b"moved", location="/b?x=1")
        return reply(200, f"{request.method} {request.target} ".encode() + request.body)

    async with Server(answer) as server, loopback(server, kind=kind).client(follow_redirects=True) as client:
        response = await client.request(method, f"{server.url}/a", content=b"body" if method == "POST" else None)
        kept = method == "POST" and status in (307, 308)
        assert response.text == ("POST /b?x=1 body" if kept else "GET /b?x=1 ")
        assert [past.text for past in response.history] == ["moved"]
        assert response.url.path == "/b"


async def test_redirects_are_not_followed_unless_asked(kind: Any) -> None:
    """By default a redirect is a response, with the request that would follow it beside it."""
    async with Server(reply(302, location="/b")) as server, loopback(server, kind=kind).client() as client:
        response = await client.get(f"{server.url}/a")
        assert response.status_code == 302
        assert response.next_request.url.path == "/b"


async def test_a_redirect_that_may_not_be_followed_is_still_a_response(kind: Any) -> None:
    """Without follow_redirects nothing is refused: there is a status, and no next request."""
    async with Server(reply(302, location="ftp://x/")) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            response = await client.get(server.url)
            assert response.status_code == 302
            assert response.next_request is None
        assert plugin.denials == []


async def test_auth_flows_pass_the_gate(kind: Any) -> None:
    """Basic and digest authentication work; a flow of the plugin's own may ask again."""

    def answer(request: Received) -> bytes:
        given = request.header("authorization") or ""
        if given.startswith("Basic "):
            return reply(200, b"basic")
        if 'response="' in given:
            return reply(200, b"digest")
        return reply(401, www_authenticate='Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256')

    async with Server(answer) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as client:
            library = client.adapter.library
            assert (await client.get(server.url, auth=("user", "word"))).text == "basic"
            assert (await client.get(server.url, auth=library.DigestAuth("user", "word"))).text == "digest"
            client.auth = ("user", "word")
            assert (await client.get(server.url)).text == "basic"
            assert (await client.get(server.url, auth=None)).status_code == 401
        assert len([event for event in plugin.events if event.capability == "http"]) == 5


async def test_tls_verifies_the_origins_name(kind: Any, authority: Any) -> None:
    """The handshake is made in the name of the URL, though the dial goes to an address."""
    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com", "other.example.com")
    async with Server(reply(200, b"x"), context=authority.server("api.example.com")) as server:
        network = NamedNetwork(server.port, trust=authority.client())
        async with Plugin(policy, network, kind).client() as client:
            assert (await client.get("https://api.example.com/")).text == "x"
            assert (await client.get("https://api.example.com/")).text == "x"
            assert server.accepted == 1
            with pytest.raises(client.adapter.library.ConnectError, match="certificate"):
                await client.get("https://other.example.com/")
        assert network.dialled == ["93.184.215.14", "93.184.215.14"]
        assert server.requests[0].header("host") == "api.example.com"


async def test_a_plugin_gets_an_httpx2_client_from_its_own(authority: Any) -> None:
    """SDKs that ask for httpx2 get a client of the same guard, lease and pool; closing it closes nothing else."""
    httpx2 = pytest.importorskip("httpx2", reason="httpx2 is not installed")
    async with Server(reply(200, b"x")) as server:
        plugin = loopback(server)
        async with plugin.client() as client:
            await client.get(server.url)
            async with client.as_httpx2(headers={"X-A": "1"}) as twin:
                assert isinstance(twin, httpx2.AsyncClient)
                assert (await twin.get(server.url)).text == "x"
                with pytest.raises(NetworkDenied) as caught:
                    await twin.get("https://evil.example.net/")
                assert isinstance(caught.value, httpx2.RequestError)
                with pytest.raises(TypeError, match="verify"):
                    client.as_httpx2(verify=False)
            assert (await client.get(server.url)).text == "x"
            assert server.accepted == 1
            late = client.as_httpx2()
            plugin.lease.revoke("over")
            with pytest.raises(Revoked):
                await late.get(server.url)
        async with plugin.client() as client:
            late = client.as_httpx2()
        with pytest.raises(RuntimeError, match="closed"):
            await late.get(server.url)


@pytest.mark.parametrize("location", ["http://[", "//[::1", "http://x:99999999/", "http://\u00e9.example/%"])
async def test_a_location_that_is_no_url_is_the_servers_fault(kind: Any, location: str) -> None:
    """Followed, it is a RemoteProtocolError or a denial; not followed, a response without a next request."""
    async with (
        Server(reply(302, location=location)) as server,
        loopback(server, kind=kind).client() as client,
    ):
        assert (await client.get(server.url)).status_code == 302
        with pytest.raises((client.adapter.library.RemoteProtocolError, NetworkDenied)):
            await client.get(server.url, follow_redirects=True)


async def test_a_client_closed_during_a_look_up_connects_no_more(kind: Any) -> None:
    """The dial that was under way is closed as it arrives."""
    waiting, proceed = asyncio.Event(), asyncio.Event()

    class Slow(NamedNetwork):
        async def resolve(self, host: str, port: int) -> list[str]:
            waiting.set()
            await proceed.wait()
            return await super().resolve(host, port)

    policy = SandboxPolicy.locked_down().allow_connect_host("api.example.com")
    async with Server(reply(200, b"x")) as server:
        async with Plugin(policy, Slow(server.port), kind).client() as client:
            task = asyncio.create_task(client.get("http://api.example.com/"))
            await waiting.wait()
            await client.aclose()
            proceed.set()
            with pytest.raises(client.adapter.library.NetworkError):
                await task
        assert server.requests == []
