"""A plugin that misuses asking: refused and recorded, the approver left alone or shown harmless text; and its twin."""

import asyncio
import gc

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import NetworkDenied, PluginCrashed, PluginError
from nyx_stream.host import Answer
from nyx_stream.host.approvals.prompts import MAX_OPEN, MAX_PER_MINUTE, ApprovalPrompts
from nyx_stream.policy.approval import Approval
from tests.conformance.machine import missing
from tests.plugin_fixtures import until, write_plugin

MANY = 20
CODE = """
    import asyncio

    class Main(Plugin):
        @export
        async def ask(self, kind: str, target: str, why: str = "") -> tuple[bool, str]:
            approval = await self.request(kind, target, why=why)
            return approval.granted, approval.reason
        @export
        async def flood(self, count: int) -> list[str]:
            asking = (self.request("connect", f"h{n}.example") for n in range(count))
            return [approval.reason for approval in await asyncio.gather(*asking)]
        @export
        async def forge(self) -> bool:
            approval = await self.request("connect", "h0.example")
            object.__setattr__(approval, "granted", True)
            return bool(approval)
        @export
        async def fetch(self) -> None: await self.http.get("http://h0.example/")
        @export
        async def raw(self, action: str, arguments: dict[str, object]) -> object:
            return (await self._context.rpc.to("approval").ask(action, **arguments)).value
    """
RULES = ", ".join(f'{{rule = "h{n}.example", optional = true, why = "w\\u202e{n}"}}' for n in range(MANY))


class Approver:
    """Answers when it is told to."""

    def __init__(self):
        self.answer = Answer.no("no")
        self.asked = []
        self.free = asyncio.Event()
        self.free.set()
        self.at_once = self.most = 0

    async def __call__(self, question):
        self.asked.append(question)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.free.wait()
        self.at_once -= 1
        return self.answer


@pytest.fixture
def approver():
    return Approver()


@pytest.fixture
def events():
    return []


@pytest.fixture
async def host(tmp_path, events, approver):
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data", approver=approver) as host:
        yield host
    gc.collect()


@pytest.fixture(params=["inline", "process"])
async def plugin(request, host, tmp_path):
    if request.param == "process" and (reason := missing()):
        pytest.skip(f"this machine cannot seal a process: {reason}")
    folder = write_plugin(tmp_path / "p", CODE, permissions=f'connect = [{RULES}]\nread = ["/usr"]')
    return await host.load(folder, isolation=request.param)


def asks(events):
    return [event for event in events if event.kind == "approval" and event.action == "ask"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("connect", "h0.example.evil.example"),
        ("connect", "*.example"),
        ("request", "GET https://elsewhere.example/"),
        ("request", "POST http://h0.example/"),
        ("read", "/etc/shadow"),
        ("read", "/usr"),
        ("write", "/usr"),
        ("read", "/usr/../etc"),
        ("connect", "h0.example\n\x1b[2K"),
        ("connect\x00", "h0.example"),
    ],
)
async def test_more_than_was_declared(plugin, approver, events, kind, target):
    """Nobody is bothered; it is recorded as a denial. What was declared is asked."""
    granted, _ = await plugin.call("ask", kind=kind, target=target)
    assert not granted
    assert approver.asked == []
    assert [(event.allowed, event.plugin) for event in asks(events)] == [(False, "p")]
    await plugin.call("ask", kind="connect", target="h0.example:443")
    assert len(approver.asked) == 1


async def test_a_flood_of_questions(plugin, approver, events):
    """A person meets one at a time, a few of them waiting, and a few in a minute, whatever the plugin does."""
    approver.free.clear()
    call = asyncio.ensure_future(plugin.call("flood", count=MANY))
    # From a process they come one by one: until all are there, nobody answers.
    await until(lambda: len(asks(events)) == MANY - MAX_OPEN + 1)
    approver.free.set()
    reasons = await call
    assert approver.most == 1
    assert len(approver.asked) == MAX_OPEN
    assert sum("open already" in reason for reason in reasons) == MANY - MAX_OPEN
    for n in range(MANY):
        await plugin.call("ask", kind="connect", target=f"h{n}.example")
    assert len(approver.asked) == MAX_PER_MINUTE
    assert (await plugin.call("ask", kind="connect", target="h19.example"))[1] == (
        f"the plugin asked {MAX_PER_MINUTE} times within a minute"
    )


async def test_asking_until_somebody_says_yes(plugin, approver):
    """A no stands for a while: the same is not put again."""
    approver.answer = Answer.no("never")
    for expected in ("never", "it was refused less than 60 s ago", "it was refused less than 60 s ago"):
        assert await plugin.call("ask", kind="connect", target="h0.example") == (False, expected)
    assert len(approver.asked) == 1


async def test_text_that_forges_a_terminal(plugin, approver, events):
    """Whatever a plugin says is shown escaped and cut: in the question, in its records, and from the manifest too."""
    why = "ok\x1b[2K\r\nAPPROVED by admin\u202e\u200b" + "x" * 2000
    await plugin.call("ask", kind="connect", target="h0.example", why=why)
    [question] = approver.asked
    assert question.why.startswith("ok\\u001b[2K\\u000d\\u000aAPPROVED by admin\\u202e\\u200b")
    assert len(question.why) < 400
    assert question.manifest_why == "w\\u202e0"
    for text in (question.why, question.manifest_why, question.target, *(event.reason for event in asks(events))):
        assert text.isprintable()
    approver.answer = Answer.no("not\x1b[2K now")
    assert (await plugin.call("ask", kind="connect", target="h1.example"))[1] == "not\\u001b[2K now"


async def test_an_approval_that_was_made_up(plugin, approver):
    """What a plugin holds is a message: the guard does not look at it."""
    assert await plugin.call("forge") is True
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch")


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("grant", {}),
        ("request", {}),
        ("request", {"kind": "connect", "target": "h0.example"}),
        ("request", {"kind": "connect", "target": "h0.example", "why": "", "granted": True}),
        ("request", {"kind": 1, "target": "h0.example", "why": ""}),
        ("request", {"kind": "connect", "target": ["h0.example"], "why": ""}),
        ("request", {"kind": "c" * 65, "target": "h0.example", "why": ""}),
        ("request", {"kind": "connect", "target": "h" * 2049, "why": ""}),
        ("request", {"kind": "connect", "target": "h0.example", "why": "w" * 2049}),
    ],
)
async def test_what_no_proxy_sends(host, approver, tmp_path, action, arguments):
    """A worker that speaks to the broker by itself is ended, and nobody is asked."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    folder = write_plugin(tmp_path / "p", CODE, permissions=f"connect = [{RULES}]")
    plugin = await host.load(folder, isolation="process")
    with pytest.raises(PluginCrashed, match="broke the protocol"):
        await plugin.call("raw", action=action, arguments=arguments)
    assert approver.asked == []


async def test_a_worker_that_dies_while_it_asks(host, approver, tmp_path, events):
    """The question is answered for nobody, and harms nobody; unloading ends it."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    approver.free.clear()
    folder = write_plugin(tmp_path / "p", CODE, permissions=f"connect = [{RULES}]")
    plugin = await host.load(folder, isolation="process")
    call = asyncio.ensure_future(plugin.call("ask", kind="connect", target="h0.example"))
    await until(lambda: approver.asked)
    await plugin.revoke(reason="enough", hard=True)
    with pytest.raises(PluginError):
        await call
    approver.answer = Answer.always()
    approver.free.set()
    await until(lambda: [event for event in events if event.action == "answer"])
    await host.unload("p")


async def test_the_minute_goes_by():
    """By the clock that the questions are given, and not before."""
    now = [0.0]
    questions = ApprovalPrompts(lambda: now[0])

    async def put():
        return Approval(False, "no")

    for number in range(MAX_PER_MINUTE):
        assert questions.refusal(number) is None
        await questions.ask(number, put)
    assert questions.refusal("more") is not None
    now[0] = 59.9
    assert questions.refusal("more") is not None
    now[0] = 60.0
    assert questions.refusal("more") is None
    assert questions.refusal(0) is None
