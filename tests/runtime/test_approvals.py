"""Optional permissions at level inline: what a plugin may request, who decides, and how long an answer holds."""

import asyncio
import logging
from dataclasses import replace

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import NetworkDenied, PolicyError, Revoked
from nyx_stream.host import Answer, ApprovalStatus
from nyx_stream.policy import SandboxPolicy
from nyx_stream.testing import run_plugin
from tests.plugin_fixtures import until

CODE = """
    import asyncio

    class Main(Plugin):
        @export
        async def ask(self, kind: str, target: str, why: str = "") -> list[object]:
            approval = await self.request(kind, target, why=why)
            return [bool(approval), approval.once, approval.until, approval.reason]
        @export
        async def fetch(self, url: str) -> str: return (await self.http.get(url, timeout=None)).text
        @export
        async def both(self, url: str) -> list[object]:
            done = await asyncio.gather(self.fetch(url), self.fetch(url), return_exceptions=True)
            return [type(item).__name__ for item in done]
        @export
        async def read(self, name: str) -> str: return await self.files.read_text(name)
        @export
        async def save(self, name: str) -> None: await self.files.write_text(name, "kept")
        @export
        async def hold(self, host: str, port: int) -> bytes:
            stream = await self.connect(host, port)
            self.log.warning("connected")
            return await stream.receive()
    """
ONLY = "no optional permission of the plugin's manifest covers it"


class Approver:
    """Gives a set answer, and records the questions."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def __call__(self, question):
        self.asked.append(question)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return await self.answer() if callable(self.answer) else self.answer


@pytest.fixture
def approver():
    return Approver(Answer.always())


@pytest.fixture
async def host(tmp_path, events, approver):
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data", approver=approver) as host:
        yield host


@pytest.fixture
def rule(server):
    return f"GET {server.url}/**"


@pytest.fixture
def load(host, make, rule):
    async def load(more="", policy=None):
        permissions = f'request = [{{rule = "{rule}", optional = true, why = "maps"}}]\n{more}'
        return await host.load(make("p", CODE, permissions=permissions), policy=policy)

    return load


def told(events, *actions):
    """Action, whether it was done, and reason of the events about approvals."""
    return [
        (e.action, e.allowed, e.reason) for e in events if e.kind == "approval" and (not actions or e.action in actions)
    ]


async def test_what_was_approved_is_granted_at_once(load, server, approver, rule, events):
    """The approver sees the plugin, the target and the reason. Its approval is in force when the plugin gets it."""
    plugin = await load()
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch", url=server.url)
    assert await plugin.call("ask", kind="request", target=f"GET {server.url}/x", why="to draw") == [
        True, False, None, "approved always",
    ]  # fmt: skip
    [question] = approver.asked
    assert (question.plugin, question.version, question.kind, question.rule) == ("p", "1.0", "request", rule)
    assert (question.manifest_why, question.target, question.why) == ("maps", f"GET {server.url}/x", "to draw")
    assert await plugin.call("fetch", url=server.url) == "page"
    assert plugin.approvals == (ApprovalStatus("request", rule, "always"),)
    assert [row.status for row in plugin.grant.rows()] == ["granted"]
    assert told(events) == [("ask", True, "asked: to draw"), ("answer", True, "approved always")]
    [sent] = [e for e in events if e.capability == "http" and e.kind == "decision" and e.allowed]
    assert (sent.rule, sent.reason) == (rule, "allowed by the rule, approved always")


async def test_asking_again_asks_nobody(load, approver, rule):
    """An approval in force answers a second request without the approver."""
    plugin = await load()
    for _ in range(3):
        assert (await plugin.call("ask", kind="request", target=rule))[0]
    assert len(approver.asked) == 1


async def test_once_is_one_request(load, server, approver, rule, events):
    """The second is refused and says why; a new question gives another one."""
    approver.answer = Answer.once()
    plugin = await load()
    for _ in range(2):
        assert (await plugin.call("ask", kind="request", target=rule))[:2] == [True, True]
        assert await plugin.call("fetch", url=server.url) == "page"
        with pytest.raises(NetworkDenied, match="approved once, and that is used up"):
            await plugin.call("fetch", url=server.url)
        assert plugin.approvals == ()
    assert len(approver.asked) == 2
    assert [event for event in told(events) if event[0] == "use"] == [("use", True, "approved once: it is used up")] * 2


async def test_of_two_requests_at_once_one_is_sent(load, server, approver, rule):
    """The decision and its use are one step, so the second request is denied."""
    approver.answer = Answer.once()
    plugin = await load()
    await plugin.call("ask", kind="request", target=rule)
    done = await plugin.call("both", url=server.url)
    assert max(done) == "str"
    assert "Denied" in min(done)


async def test_what_was_used_up_hides_no_rule_of_the_policy(load, server, approver, rule):
    """A policy that grants a part grants it before and after."""
    approver.answer = Answer.once()
    part = SandboxPolicy.locked_down().allow_request(rule.replace("**", "v1/**"))
    plugin = await load(policy=part)
    await plugin.call("ask", kind="request", target=rule)
    assert await plugin.call("fetch", url=f"{server.url}/v1/a") == "page"
    assert len(plugin.approvals) == 1
    assert await plugin.call("fetch", url=f"{server.url}/v2/a") == "page"
    assert await plugin.call("fetch", url=f"{server.url}/v1/a") == "page"


async def test_until_ends_by_itself(load, server, approver, rule, events):
    """The clock decides, not the timer. The plugin gets the end as a time."""
    approver.answer = Answer.until("50ms")
    plugin = await load()
    granted, once, end, reason = await plugin.call("ask", kind="request", target=rule)
    assert (granted, once) == (True, False)
    assert end
    assert reason.startswith("approved until 20")
    await until(lambda: told(events, "expire"))
    with pytest.raises(NetworkDenied, match="no rule allows it"):
        await plugin.call("fetch", url=server.url)
    assert plugin.approvals == ()


async def test_the_end_of_an_approval_ends_its_connections(host, make, server, approver, events):
    """As an update of the policy would."""
    approver.answer = Answer.until("50ms")
    permissions = 'connect = [{rule = "127.0.0.1", optional = true}]'
    plugin = await host.load(make("p", CODE, permissions=permissions))
    assert (await plugin.call("ask", kind="connect", target=f"127.0.0.1:{server.port}"))[0]
    with pytest.raises(Revoked):
        await plugin.call("hold", host="127.0.0.1", port=server.port)


async def test_files_are_approved_once_for_one_operation(host, make, approver, tmp_path):
    """Any one operation on files uses it up."""
    approver.answer = Answer.once()
    permissions = 'write = [{rule = "$DATA/notes", optional = true}]'
    plugin = await host.load(make("p", CODE, permissions=permissions))
    (tmp_path / "data" / "p" / "notes").mkdir()
    assert (await plugin.call("ask", kind="write", target="$DATA/notes/a"))[0]
    await plugin.call("save", name="notes/a")
    with pytest.raises(PermissionError, match="used up"):
        await plugin.call("read", name="notes/a")


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("request", "GET https://elsewhere.example/", ONLY),
        ("request", "POST http://127.0.0.1/", ONLY),
        ("connect", "127.0.0.1", ONLY),
        ("read", "/etc", ONLY),
        ("request", "GET nonsense", "not a valid request rule: a request rule has a scheme, as in https://example.com"),
        ("read", "relative", "not a valid read rule: a prefix is absolute, or begins with $DATA, $PLUGIN or ./"),
        ("env", "HOME", "permissions of kind env can't be requested; the kinds are connect, request, read, write"),
        (
            "\x1b[2J",
            "x",
            "permissions of kind \\u001b[2J can't be requested; the kinds are connect, request, read, write",
        ),
    ],
)
async def test_more_than_the_manifest_has_is_refused_and_nobody_is_asked(load, approver, events, kind, target, reason):
    """A request outside the manifest is refused without a question, and audited."""
    plugin = await load()
    assert await plugin.call("ask", kind=kind, target=target) == [False, False, None, reason]
    assert approver.asked == []
    assert told(events) == [("ask", False, reason)]


async def test_a_permission_that_is_not_optional_cannot_be_asked_for(load, approver):
    """Only the operator grants required permissions."""
    plugin = await load('read = ["/usr"]')
    assert (await plugin.call("ask", kind="read", target="/usr"))[3] == ONLY
    assert approver.asked == []


async def test_what_the_policy_grants_needs_no_question(load, server, approver, rule):
    """It is granted from the start."""
    plugin = await load(policy=SandboxPolicy.locked_down().allow_request(rule))
    assert await plugin.call("fetch", url=server.url) == "page"
    assert (await plugin.call("ask", kind="request", target=rule))[0]
    assert approver.asked == []


async def test_what_the_policy_denies_cannot_be_approved(load, server, approver, rule):
    """A deny rule beats an approval, before the question and after the answer."""
    plugin = await load(policy=SandboxPolicy.locked_down().deny_connect_host("127.0.0.1"))
    assert await plugin.call("ask", kind="request", target=rule) == [
        False, False, None, "denied by the rule 127.0.0.1",
    ]  # fmt: skip
    assert approver.asked == []
    await plugin.update_policy(SandboxPolicy.locked_down().deny_request(rule.replace("**", "secret")))
    assert (await plugin.call("ask", kind="request", target=rule))[0]
    assert await plugin.call("fetch", url=server.url) == "page"
    with pytest.raises(NetworkDenied, match="denied by the rule"):
        await plugin.call("fetch", url=f"{server.url}/secret")


async def test_an_update_of_the_policy_keeps_approvals(load, server, rule):
    """Approvals add to every policy of the operator. A deny rule suspends them while it is in force."""
    plugin = await load()
    await plugin.call("ask", kind="request", target=rule)
    await plugin.update_policy(SandboxPolicy.locked_down().allow_connect_host("a.example"))
    assert await plugin.call("fetch", url=server.url) == "page"
    await plugin.update_policy(SandboxPolicy.locked_down().deny_connect_host("127.0.0.1"))
    with pytest.raises(NetworkDenied, match="denied by the rule"):
        await plugin.call("fetch", url=server.url)
    assert (await plugin.call("ask", kind="request", target=rule))[0] is False
    await plugin.update_policy(SandboxPolicy.locked_down())
    assert await plugin.call("fetch", url=server.url) == "page"


async def test_a_reload_keeps_approvals_of_what_the_manifest_still_has(host, make, load, server, rule):
    """An approval is dropped if the new manifest lacks the permission."""
    plugin = await load()
    await plugin.call("ask", kind="request", target=rule)
    await plugin.reload()
    assert await plugin.call("fetch", url=server.url) == "page"
    make("p", CODE, permissions='request = ["GET https://a.example"]')
    await plugin.reload()
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch", url=server.url)


async def test_approvals_can_be_taken_back(load, server, rule, approver, events):
    """One, or all; the plugin may ask again."""
    plugin = await load()
    await plugin.call("ask", kind="request", target=rule)
    assert await plugin.forget("read") == 0
    assert await plugin.forget("request", rule) == 1
    with pytest.raises(NetworkDenied):
        await plugin.call("fetch", url=server.url)
    assert told(events, "forget") == [("forget", True, "withdrawn")]
    assert (await plugin.call("ask", kind="request", target=rule))[0]
    assert len(approver.asked) == 2
    assert await plugin.forget() == 1


async def test_a_headless_host_answers_from_its_policy(tmp_path, make, server, rule, events):
    """Permissions under `on_request` are granted when they are requested; everything else is refused."""
    both = ", ".join(f'{{rule = "{text}", optional = true}}' for text in (rule, "GET https://b.example"))
    permissions = f"request = [{both}]"
    policy = SandboxPolicy.locked_down().allow_on_request(SandboxPolicy.locked_down().allow_request(rule))
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        plugin = await host.load(make("p", CODE, permissions=permissions), policy=policy)
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url=server.url)
        assert (await plugin.call("ask", kind="request", target=rule))[3].startswith("approved by the policy")
        assert await plugin.call("fetch", url=server.url) == "page"
        assert await plugin.call("ask", kind="request", target="GET https://b.example") == [
            False, False, None, "the policy doesn't grant it on request, and the host has no approver",
        ]  # fmt: skip
        await plugin.update_policy(SandboxPolicy.locked_down())
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url=server.url)


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("on purpose"), asyncio.CancelledError(), True, "always", replace(Answer.once(), verdict="yes"), None,
     replace(Answer.always(), verdict="until"), Answer("until", 1e12), Answer("until", 1e300)],
)  # fmt: skip
async def test_an_approver_that_fails_says_no(load, approver, rule, events, answer, caplog):
    """An exception or a wrong return value counts as a refusal, and is logged."""
    approver.answer = answer
    plugin = await load()
    with caplog.at_level(logging.ERROR, "nyx.host"):
        assert await plugin.call("ask", kind="request", target=rule) == [False, False, None, "the approver failed"]
    assert "approver" in caplog.text
    assert told(events, "answer") == [("answer", False, "the approver failed")]


async def test_an_approver_that_says_nothing_says_no(tmp_path, make, rule, approver):
    """After the time that the host gives it."""
    approver.answer = asyncio.Event().wait
    permissions = f'request = [{{rule = "{rule}", optional = true}}]'
    async with PluginHost(data_dir=tmp_path / "data", approver=approver, approver_timeout="20ms") as host:
        plugin = await host.load(make("p", CODE, permissions=permissions))
        assert await plugin.call("ask", kind="request", target=rule) == [
            False, False, None, "no answer within 0.02 s",
        ]  # fmt: skip


async def test_a_question_outlives_the_call_that_asked(load, approver, rule, server, events):
    """An answer that comes after the call has ended applies to the next call."""
    answered = asyncio.Event()

    async def later():
        await answered.wait()
        return Answer.always()

    approver.answer = later
    plugin = await load()
    call = asyncio.ensure_future(plugin.call("ask", kind="request", target=rule))
    await until(lambda: approver.asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    again = asyncio.ensure_future(plugin.call("ask", kind="request", target=rule))
    answered.set()
    assert (await again)[0]
    assert len(approver.asked) == 1
    assert await plugin.call("fetch", url=server.url) == "page"


async def test_unloading_ends_open_questions(host, load, approver, rule):
    """Unloading the plugin cancels its questions."""
    left = asyncio.Event()

    async def never():
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    approver.answer = never
    plugin = await load()
    call = asyncio.ensure_future(plugin.call("ask", kind="request", target=rule))
    await until(lambda: approver.asked)
    await host.unload("p")
    assert left.is_set()
    with pytest.raises(BaseException):  # noqa: B017, PT011  # stopped during its call
        await call


async def test_an_approval_gives_no_revoked_capability_back(load, server, rule):
    """An approval adds a rule; it doesn't renew a lease. A reload does."""
    plugin = await load()
    await plugin.revoke("http", reason="incident 42")
    assert (await plugin.call("ask", kind="request", target=rule))[0]
    with pytest.raises(Revoked, match="incident 42"):
        await plugin.call("fetch", url=server.url)
    await plugin.reload()
    assert await plugin.call("fetch", url=server.url) == "page"


async def test_a_plugins_tests_can_answer_for_its_host(make, rule, server):
    """With an approver, what is optional is not granted from the start; without, it is."""
    folder = make("p", CODE, permissions=f'request = [{{rule = "{rule}", optional = true}}]')
    async with run_plugin(folder, approver=Approver(Answer.no("not in this test"))) as plugin:
        assert (await plugin.call("ask", kind="request", target=rule))[3] == "not in this test"
        with pytest.raises(NetworkDenied):
            await plugin.call("fetch", url=server.url)
    async with run_plugin(folder) as plugin:
        assert await plugin.call("fetch", url=server.url) == "page"


async def test_rules_on_request_only_allow():
    """Neither limits nor deny rules are given on request."""
    with pytest.raises(PolicyError, match="on request"):
        SandboxPolicy.locked_down().allow_on_request(SandboxPolicy.locked_down().deny_connect_host("a.example"))
