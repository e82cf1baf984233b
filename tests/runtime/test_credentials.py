"""Credentials are put below the plugin: sent where their rule says, and nowhere that the plugin can look."""

import json
import logging
import os
import traceback
from dataclasses import replace

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import NetworkDenied, PolicyError
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.conftest import kind  # noqa: F401  # both libraries
from tests.capabilities.http.loopback import Plugin, Received, Server, reply
from tests.plugin_fixtures import write_plugin

SECRET = "s3cr3t-of-the-operator"


@pytest.fixture(autouse=True)
def token(monkeypatch):
    """The secret, where the host finds it."""
    monkeypatch.setenv("NYX_TEST_TOKEN", SECRET)


def plugin_for(server: Server, kind=None, path: str = "/v1/**", **more: str) -> Plugin:  # noqa: F811
    """A plugin that may ask anything of a server, with a credential for a part of it."""
    here = f"http://127.0.0.1:{server.port}"
    given = {"header": "Authorization", "value": "env:NYX_TEST_TOKEN", "prefix": "Bearer "} | more
    policy = SandboxPolicy.locked_down().allow_connect_host("127.0.0.1").bind_credential(here + path, **given)
    return Plugin(policy, **({"kind": kind} if kind else {}))


async def test_it_is_sent_where_its_rule_says(kind):  # noqa: F811
    """The server gets the header below the rule's path, and the plugin's own words elsewhere."""
    async with Server() as server:
        plugin = plugin_for(server, kind)
        async with plugin.client(base_url=f"http://127.0.0.1:{server.port}") as client:
            inside = await client.get("/v1/x", headers={"authorization": "mine"})
            await client.get("/v2/x", headers={"authorization": "mine"})
            await client.get("/v1/../v2/x")
        assert [r.header("authorization") for r in server.requests] == [f"Bearer {SECRET}", "mine", None]
        assert inside.request.headers["authorization"] == "mine"
    assert not plugin.denials
    assert SECRET not in repr(plugin.events)


async def test_other_spellings_of_the_header_are_replaced_too(kind):  # noqa: F811
    """Neither case, repetition nor an underscore lets the plugin's word stand beside the credential."""
    async with Server() as server:
        async with plugin_for(server, kind, header="X-Key", prefix="").client() as client:
            mine = [("X-KEY", "a"), ("x-key", "b"), ("X_Key", "c")]
            await client.get(f"http://127.0.0.1:{server.port}/v1/x", headers=mine)
        sent = [value for name, value in server.requests[0].headers if name.lower().replace("_", "-") == "x-key"]
        assert sent == [SECRET]


async def test_it_crosses_no_origin(kind):  # noqa: F811
    """A redirect to another port carries nothing; one that comes back is decided anew."""
    async with Server() as other, Server() as server:
        here, there = (f"http://127.0.0.1:{each.port}" for each in (server, other))
        server._answer = lambda asked: reply(302, location=f"{there}/v1/a") if asked.target == "/v1/go" else reply()
        other._answer = lambda asked: reply(302, location=f"{here}/v1/back")
        plugin = plugin_for(server, kind)
        async with plugin.client(follow_redirects=True) as client:
            last = await client.get(f"{here}/v1/go")
        assert [r.header("authorization") for r in server.requests] == [f"Bearer {SECRET}"] * 2
        assert [r.header("authorization") for r in other.requests] == [None]
        for response in (*last.history, last):
            assert "authorization" not in response.request.headers
            assert SECRET not in repr(response.request.headers.raw)


async def test_an_auth_flow_and_hooks_never_see_it(kind):  # noqa: F811
    """Basic auth of the plugin is replaced; hooks and flows get requests and responses without the secret."""
    seen = []

    async def hook(message):
        seen.append(repr(vars(message)) + repr(message.headers.raw))

    async with Server() as server:
        hooks = {"request": [hook], "response": [hook]}
        async with plugin_for(server, kind).client(auth=("user", "password"), event_hooks=hooks) as client:
            request = client.build_request("GET", f"http://127.0.0.1:{server.port}/v1/x")
            response = await client.send(request)
        assert server.requests[0].header("authorization") == f"Bearer {SECRET}"
    seen += [repr(vars(response)), repr(response), repr(request.headers.raw)]
    assert SECRET not in "".join(seen)


async def test_what_a_server_sends_back_in_its_head_is_hidden(kind):  # noqa: F811
    """A header, a Location or a cookie that repeats the secret has a mark in its place."""

    def echo(asked: Received) -> bytes:
        said = asked.header("authorization") or ""
        return reply(302, x_echo=said, location=f"/v1/next?t={said[7:]}", set_cookie=f"t={said[7:]}")

    async with Server(echo) as server, plugin_for(server, kind).client() as client:
        response = await client.get(f"http://127.0.0.1:{server.port}/v1/x")
        assert response.headers["x-echo"] == "Bearer [secret]"
        assert SECRET not in repr(response.headers.raw)
        assert SECRET not in str(response.next_request.url)
        assert SECRET not in repr(list(client.cookies.jar))


async def test_texts_of_errors_do_not_have_it(kind):  # noqa: F811
    """A protocol error quotes what the server sent, without the secret, down to its causes."""

    def echo(asked: Received) -> bytes:
        return b"HTTP/1.1 200 OK\r\nbad header " + (asked.header("authorization") or "").encode() + b"\r\n\r\n"

    async with Server(echo) as server, plugin_for(server, kind).client() as client:
        with pytest.raises(client.adapter.library.RemoteProtocolError) as caught:
            await client.get(f"http://127.0.0.1:{server.port}/v1/x")
    text = "".join(traceback.format_exception(caught.value))
    assert "[secret]" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "not set"),
        ("", "expected printable"),
        ("a\r\nX-Injected: b", "expected printable"),
        ("schlüssel", "expected printable"),
    ],
)
async def test_without_its_secret_the_request_is_denied(kind, monkeypatch, value, why):  # noqa: F811
    """Nothing is sent without the credential or with half of it; the denial is audited and names the source."""
    async with Server() as server:
        plugin = plugin_for(server, kind)
        async with plugin.client() as client:
            monkeypatch.setenv("NYX_TEST_TOKEN", value or "")
            if value is None:
                monkeypatch.delenv("NYX_TEST_TOKEN")
            with pytest.raises(NetworkDenied, match=f"env:NYX_TEST_TOKEN.*{why}"):
                await client.get(f"http://127.0.0.1:{server.port}/v1/x")
        assert not server.requests
    assert len(plugin.denials) == 1


async def test_a_file_is_read_again_when_it_changes(tmp_path):
    """A rotated secret is used by the next request, without a reload."""
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    async with Server() as server:
        async with plugin_for(server, value=f"file:{path}").client() as client:
            await client.get(f"http://127.0.0.1:{server.port}/v1/x")
            (tmp_path / "new").write_text("second-secret\n")
            os.replace(tmp_path / "new", path)
            await client.get(f"http://127.0.0.1:{server.port}/v1/x")
        sent = [r.header("authorization") for r in server.requests]
    assert sent == ["Bearer first-secret", "Bearer second-secret"]


async def test_a_pipe_or_directory_is_no_secret(tmp_path):
    """A secret that isn't a regular file is refused, without waiting for a writer."""
    os.mkfifo(tmp_path / "pipe")
    async with Server() as server:
        for place in (tmp_path, tmp_path / "pipe"):
            async with plugin_for(server, value=f"file:{place}").client() as client:
                with pytest.raises(NetworkDenied, match="expected a regular file"):
                    await client.get(f"http://127.0.0.1:{server.port}/v1/x")


async def test_a_change_of_policy_changes_the_credential():
    """The guard's next verdict has the new policy's credentials, and a policy without them has none."""
    async with Server() as server:
        plugin = plugin_for(server)
        async with plugin.client() as client:
            url = f"http://127.0.0.1:{server.port}/v1/x"
            await client.get(url)
            plugin.guard.update(replace(plugin.policy, credentials=()))
            await client.get(url)
        assert [r.header("authorization") for r in server.requests] == [f"Bearer {SECRET}", None]


def test_a_credential_grants_nothing():
    """A request that only a credential's rule covers is denied, and its verdict carries none."""
    policy = SandboxPolicy.locked_down().bind_credential("https://a.example/**", header="X-Key", value="env:K")
    verdict = SandboxGuard(policy).judge_request("GET", "https://a.example/x")
    assert not verdict.decision.allowed
    assert verdict.credentials == ()


def test_its_file_is_denied_to_the_plugin(tmp_path):
    """A grant around the secret's file does not open the file."""
    policy = SandboxPolicy.locked_down().allow_path_prefix(tmp_path)
    policy = policy.bind_credential("https://a.example", header="X-Key", value=f"file:{tmp_path}/token")
    guard = SandboxGuard(policy)
    assert guard.decide_path(f"{tmp_path}/other").allowed
    assert not guard.decide_path(f"{tmp_path}/token").allowed


FILE = """
[allow]
request = ["https://api.example.com/v1/**"]

[[credentials]]
rule = "https://api.example.com/v1/**"
header = "Authorization"
value = "env:NYX_TEST_TOKEN"
prefix = "Bearer "
"""


def test_a_file_is_read_and_printed_without_the_secret(tmp_path):
    """`to_toml` prints the source, and is read back as an equal policy."""
    path = tmp_path / "policy.toml"
    path.write_text(FILE)
    policy = SandboxPolicy.from_toml(path)
    path.write_text(policy.to_toml())
    assert SandboxPolicy.from_toml(path) == policy
    assert 'value = "env:NYX_TEST_TOKEN"' in policy.to_toml()
    assert SECRET not in policy.to_toml() + repr(policy) + str(policy)
    assert str(policy.credentials[0].source) == "policy.toml:6"


def test_a_secret_pasted_into_the_file_is_not_printed(tmp_path):
    """The error says what belongs there and where, and does not repeat the line."""
    path = tmp_path / "policy.toml"
    path.write_text(FILE.replace("env:NYX_TEST_TOKEN", SECRET))
    with pytest.raises(PolicyError, match=r"policy.toml:8.*env:NAME") as caught:
        SandboxPolicy.from_toml(path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Authorization", "Host", "belongs to the connection"),
        ("Authorization", "Content-Length", "belongs to the connection"),
        ("Authorization", "X Key", "token of RFC 9110"),
        ('rule = "https', 'rule = "wss', "over http or https"),
        ("env:NYX_TEST_TOKEN", "file:token", "absolute"),
        ("env:NYX_TEST_TOKEN", "env:not a name", "environment variable"),
        ("Bearer ", "a\\nb", "printable"),
        ("[allow]", '[allow]\nenv = ["NYX_TEST_TOKEN"]', "also in"),
        ("header =", "haeder =", "header"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path, old, new, why):
    """Every wrong part of a credential is a fault of the file."""
    path = tmp_path / "policy.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(PolicyError, match=why):
        SandboxPolicy.from_toml(path)


def test_its_variable_cannot_be_granted_as_well():
    """The builder refuses what the file refuses."""
    policy = SandboxPolicy.locked_down().allow_env("K")
    with pytest.raises(PolicyError, match="K holds a credential"):
        policy.bind_credential("https://a.example", header="X-Key", value="env:K")


async def test_a_host_refuses_a_policy_whose_secret_is_missing(tmp_path, monkeypatch):
    """Loading and updating say so at once, with file and line; the old policy stays in force."""
    path = tmp_path / "policy.toml"
    path.write_text(FILE)
    code = "class Main(Plugin):\n    @export\n    async def ping(self) -> str: return 'pong'\n"
    folder = write_plugin(tmp_path / "p", code)
    async with PluginHost(data_dir=tmp_path / "data") as host:
        monkeypatch.delenv("NYX_TEST_TOKEN")
        with pytest.raises(PolicyError, match=r"policy.toml:6: cannot read the credential Authorization .* not set"):
            await host.load(folder, policy=path)
        assert "p" not in host.plugins
        plugin = await host.load(folder, policy=SandboxPolicy.locked_down())
        with pytest.raises(PolicyError, match="not set"):
            await plugin.update_policy(path)
        assert plugin.grant.policy.credentials == ()


async def test_no_log_and_no_audit_record_has_it(tmp_path, caplog):
    """A whole run at the most talkative level of every logger leaves no trace of the secret."""
    caplog.set_level(logging.DEBUG)
    async with Server() as server:
        here = f"http://127.0.0.1:{server.port}"
        path = tmp_path / "policy.toml"
        path.write_text(FILE.replace("https://api.example.com", here))
        code = """
            class Main(Plugin):
                @export
                async def fetch(self, url: str) -> str: return repr((await self.http.get(url)).request.headers)
            """
        folder = write_plugin(tmp_path / "p", code, permissions=f'request = ["{here}/**"]')
        async with PluginHost(data_dir=tmp_path / "data", audit=tmp_path / "audit.jsonl") as host:
            plugin = await host.load(folder, policy=path)
            assert SECRET not in await plugin.call("fetch", url=f"{here}/v1/x")
            assert SECRET not in repr(plugin.grant)
        assert server.requests[0].header("authorization") == f"Bearer {SECRET}"
    lines = (tmp_path / "audit.jsonl").read_text()
    assert any(json.loads(line).get("capability") == "http" for line in lines.splitlines())
    assert SECRET not in lines + caplog.text
