"""Asking for an optional permission is the same at every level."""

import asyncio

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import FilesystemDenied, NetworkDenied
from nyx_stream.host import Answer
from tests.capabilities.http.loopback import Server, reply

CODE = """
    class Main(Plugin):
        @export
        async def ask(self, kind: str, target: str, why: str = "") -> list[object]:
            approval = await self.request(kind, target, why=why)
            return [bool(approval), approval.once, approval.until, approval.reason]
        @export
        async def wrong(self) -> list[str]:
            told = []
            for arguments in ((1, "x"), ("read", b"x"), ("read", "x" * 2049), ("x" * 65, "x")):
                try:
                    await self.request(*arguments)
                except (TypeError, ValueError) as error:
                    told.append(f"{type(error).__name__}: {error}")
            return told
        @export
        async def odd(self) -> str: return (await self.request("read", "/\\ud800", why="\\udfff")).reason
        @export
        async def fetch(self, url: str) -> str: return (await self.http.get(url)).text
        @export
        async def save(self, name: str) -> None: await self.files.write_text(name, "kept")
        @export
        async def talk(self, host: str, port: int) -> bytes:
            async with await self.connect(host, port) as stream:
                await stream.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
                return (await stream.receive())[:8]

    class Early(Main):
        async def setup(self) -> None:
            self.answer = await self.request("read", "/usr")
        @export
        async def early(self) -> bool: return bool(self.answer)
    """


class Approver:
    def __init__(self):
        self.answer = Answer.always()
        self.asked = []

    async def __call__(self, question):
        self.asked.append(question)
        return self.answer


@pytest.fixture
def approver():
    return Approver()


@pytest.fixture
async def host(tmp_path, events, approver):
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data", approver=approver) as host:
        yield host


@pytest.fixture
async def server():
    async with Server(lambda asked: reply(200, b"page")) as server:
        yield server


@pytest.fixture
async def plugin(load, server):
    permissions = f"""
        request = [{{rule = "GET {server.url}/**", optional = true, why = "maps"}}]
        connect = [{{rule = "127.0.0.1:{server.port}", optional = true}}]
        write = [{{rule = "$DATA/notes", optional = true}}]
        """
    return await load(CODE, permissions=permissions)


async def test_each_kind_is_denied_before_and_allowed_after(plugin, server, approver, tmp_path):
    """At once, and without a restart."""
    (tmp_path / "data" / "p" / "notes").mkdir()
    for kind, target, call, error in (
        ("write", "$DATA/notes", ("save", {"name": "notes/a"}), FilesystemDenied),
        ("request", f"GET {server.url}/**", ("fetch", {"url": f"{server.url}/a"}), NetworkDenied),
        ("connect", f"127.0.0.1:{server.port}", ("talk", {"host": "127.0.0.1", "port": server.port}), NetworkDenied),
    ):
        with pytest.raises(error):
            await plugin.call(call[0], **call[1])
        assert (await plugin.call("ask", kind=kind, target=target))[:2] == [True, False]
        await plugin.call(call[0], **call[1])
    assert (tmp_path / "data" / "p" / "notes" / "a").read_text() == "kept"
    assert [question.kind for question in approver.asked] == ["write", "request", "connect"]


async def test_once_is_one_operation(plugin, server, approver, tmp_path):
    """Of each kind."""
    approver.answer = Answer.once()
    (tmp_path / "data" / "p" / "notes").mkdir()
    for kind, target, call in (
        ("write", "$DATA/notes", ("save", {"name": "notes/a"})),
        ("request", f"GET {server.url}/**", ("fetch", {"url": f"{server.url}/a"})),
        ("connect", f"127.0.0.1:{server.port}", ("talk", {"host": "127.0.0.1", "port": server.port})),
    ):
        assert (await plugin.call("ask", kind=kind, target=target))[:2] == [True, True]
        await plugin.call(call[0], **call[1])
        with pytest.raises(PermissionError, match="used up"):
            await plugin.call(call[0], **call[1])


async def test_no_is_no_error(plugin, server, approver):
    """The plugin reads why."""
    approver.answer = Answer.no("not today")
    answer = await plugin.call("ask", kind="request", target=f"GET {server.url}/**")
    assert answer == [False, False, None, "not today"]


async def test_a_time_is_told(plugin, server, approver):
    """As seconds since the epoch."""
    approver.answer = Answer.until("10m")
    answer = await plugin.call("ask", kind="request", target=f"GET {server.url}/**")
    assert answer[:2] == [True, False]
    assert answer[2] > 1.7e9


async def test_wrong_arguments_are_the_plugins_own_errors(plugin):
    """And nothing is asked."""
    assert await plugin.call("wrong") == [
        "TypeError: kind is a str, not int",
        "TypeError: target is a str, not bytes",
        "ValueError: target has more than 2048 characters",
        "ValueError: kind has more than 64 characters",
    ]


async def test_a_lone_surrogate_is_text_like_any_other(plugin):
    """It ends no connection."""
    assert await plugin.call("odd") == "no optional permission of the plugin's manifest covers it"


async def test_setup_may_ask(load, approver):
    """What is granted then is in force for the first call."""
    permissions = 'read = [{rule = "/usr", optional = true}]'
    plugin = await load(CODE, permissions=permissions, entry="main:Early")
    assert await plugin.call("early") is True
    assert [row.status for row in plugin.grant.rows()] == ["granted"]


async def test_those_who_ask_for_the_same_share_one_question(plugin, server, approver):
    """They all get its answer."""
    asking = (plugin.call("ask", kind="request", target=f"GET {server.url}/p{n}") for n in range(4))
    assert [answer[3] for answer in await asyncio.gather(*asking)] == ["approved always"] * 4
    assert len(approver.asked) == 1
